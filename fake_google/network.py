"""VPC networks and their peering with Google's network: checked as Google does, and recorded.

https://cloud.google.com/compute/docs/reference/rest/v1 and
https://cloud.google.com/service-infrastructure/docs/service-networking/reference/rest
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fake_google.errors import NotFound, Refused
from fake_google.resource_type import Inputs, Outputs, last

if TYPE_CHECKING:
    from fake_google.cloud import Cloud

NETWORK = "gcp:compute/network:Network"
SUBNETWORK = "gcp:compute/subnetwork:Subnetwork"
ADDRESSES = "gcp:compute/globalAddress:GlobalAddress"
SERVICE = "gcp:cloudrunv2/service:Service"


def network_id(cloud: Cloud, inputs: Inputs) -> str:
    return f"projects/{cloud.project}/global/networks/{inputs['name']}"


def subnetwork_id(cloud: Cloud, inputs: Inputs) -> str:
    region = inputs.get("region") or cloud.region
    return f"projects/{cloud.project}/regions/{region}/subnetworks/{inputs['name']}"


def addresses_id(cloud: Cloud, inputs: Inputs) -> str:
    return f"projects/{cloud.project}/global/addresses/{inputs['name']}"


def make_network(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    return network_id(cloud, inputs), {}


def delete_network(cloud: Cloud, _olds: Inputs, inputs: Inputs) -> None:
    network = network_id(cloud, inputs)
    users = [
        made
        for (token, made), live in cloud.live.items()
        if token in (SUBNETWORK, ADDRESSES) and live.inputs.get("network") == network
    ]
    if network in cloud.peered:
        users.append(f"{network}/networkPeerings/servicenetworking-googleapis-com")
    for user in users:
        _in_use("network", network, user)


def make_subnetwork(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    _check_network(cloud, inputs)
    return subnetwork_id(cloud, inputs), {}


def delete_subnetwork(cloud: Cloud, _olds: Inputs, inputs: Inputs) -> None:
    """Deletes a subnetwork. A deleted service's addresses are free at once; Google needs hours."""
    for (token, made), live in cloud.live.items():
        if token == SERVICE and inputs["name"] in {last(sub) for _, sub in ways(live.inputs)}:
            _in_use("subnetwork", subnetwork_id(cloud, inputs), f"{made}/addresses/serverless")


def make_addresses(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    """Reserves a range inside a network, or a load balancer's address on the internet."""
    if "network" not in inputs:
        return addresses_id(cloud, inputs), {"address": "203.0.113.80"}
    _check_network(cloud, inputs)
    return addresses_id(cloud, inputs), {"address": "10.64.0.0"}


def make_peering(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    _check_network(cloud, inputs)
    for ranges in inputs["reservedPeeringRanges"]:
        if cloud.read(ADDRESSES, addresses_id(cloud, {"name": ranges})) is None:
            raise NotFound(f"Error 400: The reserved range {ranges} does not exist.")
    cloud.peered.add(inputs["network"])
    return f"{inputs['network']}:{inputs['service']}", {}


def delete_peering(cloud: Cloud, olds: Inputs, inputs: Inputs) -> None:
    network, policy = inputs["network"], olds.get("deletionPolicy")
    if policy == "ABANDON":
        return
    if network in cloud.produced and policy != "REMOVE_PEERING":
        raise Refused(
            "Error code 9, message: Failed to delete connection; Producer services (e.g. "
            "CloudSQL, Cloud Memstore, etc.) are still using this connection."
        )
    cloud.peered.discard(network)


def ways(service: Inputs) -> list[tuple[str, str]]:
    """Returns the networks and subnetworks that a Cloud Run service connects to."""
    access = service["template"].get("vpcAccess") or {}
    return [
        (interface.get("network") or "", interface.get("subnetwork") or "")
        for interface in access.get("networkInterfaces") or ()
    ]


def check_ways(cloud: Cloud, service: Inputs, *, location: str) -> None:
    """Checks a service's networks; undeclared and other projects' networks aren't known here."""
    for network, subnetwork in ways(service):
        if cloud.read(NETWORK, network_id(cloud, {"name": network})) is None:
            continue
        made = cloud.read(
            SUBNETWORK, subnetwork_id(cloud, {"name": subnetwork or network, "region": location})
        )
        if made is None or last(made.inputs["network"]) != network:
            raise Refused(
                f"Error 400: Subnet {subnetwork or network!r} not found in region {location} of "
                f"network {network!r}."
            )


def check_peered(cloud: Cloud, network: str, instance: str) -> None:
    """Checks that a declared network is peered; an undeclared network is peered elsewhere."""
    if cloud.read(NETWORK, network) and network not in cloud.peered:
        raise Refused(
            "Error 400: Invalid request: Incorrect Service Networking config for instance: "
            f"{cloud.project}:{instance}:NETWORK_NOT_PEERED."
        )
    cloud.produced.add(network)


def _check_network(cloud: Cloud, inputs: Inputs) -> None:
    if cloud.read(NETWORK, inputs["network"]) is None:
        raise NotFound(f"Error 404: The resource {inputs['network']!r} was not found, notFound")


def _in_use(what: str, name: str, user: str) -> None:
    raise Refused(
        f"Error 400: The {what} resource {name!r} is already being used by {user!r}, "
        "resourceInUseByAnotherResource"
    )
