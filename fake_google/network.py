"""VPC networks and their peering with Google's network: checked as Google does, and recorded.

https://cloud.google.com/compute/docs/reference/rest/v1 and
https://cloud.google.com/service-infrastructure/docs/service-networking/reference/rest
"""

from __future__ import annotations

from ipaddress import ip_network

from fake_google.errors import NotFound, Refused
from fake_google.project import Inputs, Outputs, Project
from fake_google.resource_type import last

NETWORK = "gcp:compute/network:Network"
SUBNETWORK = "gcp:compute/subnetwork:Subnetwork"
ADDRESSES = "gcp:compute/globalAddress:GlobalAddress"
SERVICE = "gcp:cloudrunv2/service:Service"


def network_id(project: Project, inputs: Inputs) -> str:
    return f"projects/{project.id}/global/networks/{inputs['name']}"


def subnetwork_id(project: Project, inputs: Inputs) -> str:
    region = inputs.get("region") or project.region
    return f"projects/{project.id}/regions/{region}/subnetworks/{inputs['name']}"


def addresses_id(project: Project, inputs: Inputs) -> str:
    return f"projects/{project.id}/global/addresses/{inputs['name']}"


def make_network(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    return network_id(project, inputs), {}


def delete_network(project: Project, _olds: Inputs, inputs: Inputs) -> None:
    network = network_id(project, inputs)
    users = [
        made
        for (token, made), live in project.live.items()
        if token in (SUBNETWORK, ADDRESSES) and live.inputs.get("network") == network
    ]
    if network in project.peered:
        users.append(f"{network}/networkPeerings/servicenetworking-googleapis-com")
    for user in users:
        _in_use("network", network, user)


def make_subnetwork(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    _check_network(project, inputs)
    made = subnetwork_id(project, inputs)
    for (token, other), live in project.live.items():
        if token == SUBNETWORK and other != made and live.inputs["network"] == inputs["network"]:
            _check_overlap(inputs, live.inputs)
    return made, {}


def _check_overlap(inputs: Inputs, other: Inputs) -> None:
    """https://cloud.google.com/vpc/docs/subnets#ipv4-ranges"""
    ranges = [ip_network(each["ipCidrRange"]) for each in (inputs, other)]
    if ranges[0].overlaps(ranges[1]):
        raise Refused(
            "Error 400: Invalid value for field 'resource.ipCidrRange': "
            f"'{inputs['ipCidrRange']}'. Invalid IPCidrRange: {inputs['ipCidrRange']} conflicts "
            f"with existing subnetwork '{other['name']}'., invalid"
        )


def delete_subnetwork(project: Project, _olds: Inputs, inputs: Inputs) -> None:
    subnetwork = subnetwork_id(project, inputs)
    used = project.reserved.union(
        *(subnetworks(project, service) for service in project.all(SERVICE))
    )
    if subnetwork in used:
        region = subnetwork.rpartition("/subnetworks/")[0]
        _in_use("subnetwork", subnetwork, f"{region}/addresses/serverless-ipv4-1")


def release_addresses(project: Project) -> None:
    """Frees the addresses of deleted services, which Google does after one or two hours.

    https://cloud.google.com/run/docs/configuring/vpc-direct-vpc#delete-subnet
    """
    project.reserved.clear()


def make_addresses(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    """Reserves a range inside a network, or a load balancer's address on the internet."""
    if "network" not in inputs:
        return addresses_id(project, inputs), {"address": "203.0.113.80"}
    _check_network(project, inputs)
    return addresses_id(project, inputs), {"address": "10.64.0.0"}


def make_peering(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    _check_network(project, inputs)
    for ranges in inputs["reservedPeeringRanges"]:
        if project.read(ADDRESSES, addresses_id(project, {"name": ranges})) is None:
            raise NotFound(f"Error 400: The reserved range {ranges} does not exist.")
    network = inputs["network"]
    # Google keeps the connection that has deleted instances, even for a new network of that name:
    # https://github.com/hashicorp/terraform-provider-google/issues/3294
    left_over = network in project.produced and network not in project.peered
    if left_over and not inputs.get("updateOnCreationFail"):
        raise Refused(
            "Error waiting for Create Service Networking Connection: Error code 9, message: Cannot "
            "modify allocated ranges in CreateConnection. Please use UpdateConnection."
        )
    project.peered.add(network)
    return f"{inputs['network']}:{inputs['service']}", {}


def delete_peering(project: Project, olds: Inputs, inputs: Inputs) -> None:
    network, policy = inputs["network"], olds.get("deletionPolicy")
    if policy == "ABANDON":
        return
    if network in project.produced and policy != "REMOVE_PEERING":
        raise Refused(
            "Error code 9, message: Failed to delete connection; Producer services (e.g. "
            "CloudSQL, Cloud Memstore, etc.) are still using this connection."
        )
    project.peered.discard(network)


def ways(service: Inputs) -> list[tuple[str, str]]:
    """Returns the networks and subnetworks that a Cloud Run service connects to."""
    access = service["template"].get("vpcAccess") or {}
    return [
        (interface.get("network") or "", interface.get("subnetwork") or "")
        for interface in access.get("networkInterfaces") or ()
    ]


def subnetworks(project: Project, service: Inputs) -> set[str]:
    """Returns the full names of the subnetworks that a Cloud Run service connects to."""
    region = service.get("location") or project.region
    return {
        subnetwork_id(project, {"name": last(subnetwork), "region": region})
        for _, subnetwork in ways(service)
    }


def check_ways(project: Project, service: Inputs, *, location: str) -> None:
    """Checks a service's networks; undeclared and other projects' networks aren't known here."""
    for network, subnetwork in ways(service):
        if project.read(NETWORK, network_id(project, {"name": network})) is None:
            continue
        made = project.read(
            SUBNETWORK, subnetwork_id(project, {"name": subnetwork or network, "region": location})
        )
        if made is None or last(made.inputs["network"]) != network:
            raise Refused(
                f"Error 400: Subnet {subnetwork or network!r} not found in region {location} of "
                f"network {network!r}."
            )


def check_peered(project: Project, network: str, instance: str) -> None:
    """Checks that a declared network is peered; an undeclared network is peered elsewhere."""
    if project.read(NETWORK, network) and network not in project.peered:
        raise Refused(
            "Error 400: Invalid request: Incorrect Service Networking config for instance: "
            f"{project.id}:{instance}:NETWORK_NOT_PEERED."
        )
    project.produced.add(network)


def _check_network(project: Project, inputs: Inputs) -> None:
    if project.read(NETWORK, inputs["network"]) is None:
        raise NotFound(f"Error 404: The resource {inputs['network']!r} was not found, notFound")


def _in_use(what: str, name: str, user: str) -> None:
    raise Refused(
        f"Error 400: The {what} resource {name!r} is already being used by {user!r}, "
        "resourceInUseByAnotherResource"
    )
