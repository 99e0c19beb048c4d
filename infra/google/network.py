"""The private network: the database has an address in it, and the server a way into it."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from ..component import Component
from ..settings.model import ExistingNetwork

# Nothing else is in the network, so any private range does. Cloud Run takes 16 addresses at a time,
# two for an instance and, while a revision follows another, four:
# https://cloud.google.com/run/docs/configuring/vpc-direct-vpc#scale_up. With 4 connections each,
# no tier of Cloud SQL has enough for more than 250 instances.
SERVER_RANGE = "10.0.0.0/22"
# Google takes a /24 of it for Cloud SQL in each region, and it can't be made larger later:
# https://cloud.google.com/sql/docs/postgres/private-ip#allocated_ip_address_ranges
SERVICES_PREFIX = 20


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the database has its address, and the server its way to it."""

    # By its full name, as Cloud SQL wants it.
    id: pulumi.Input[str]
    network: pulumi.Input[str]
    subnetwork: pulumi.Input[str]


def existing(found: ExistingNetwork, *, project: str, region: str) -> Place:
    """A VPC of somebody's, to which nothing is added and of which nothing is asked.

    Its peering with Google's network must be there, of which a VPC has one for all that it is used
    for: https://cloud.google.com/vpc/docs/configure-private-services-access. Cloud SQL refuses at
    once where it isn't. Whoever previews a deployment may have no right to look for it.
    """
    network = f"projects/{found.project}/global/networks/{found.name}"
    if found.project == project:
        return Place(id=network, network=found.name, subnetwork=found.subnetwork)
    # https://cloud.google.com/run/docs/configuring/shared-vpc-direct-vpc
    subnetwork = f"projects/{found.project}/regions/{region}/subnetworks/{found.subnetwork}"
    return Place(id=network, network=network, subnetwork=subnetwork)


class Network(Component):
    """A VPC of the stack's own, peered with the network that Cloud SQL is in.

    By private services access, not Private Service Connect: the socket that Cloud Run mounts takes
    an instance's private address where it has no public one, and knows no endpoints.
    https://github.com/GoogleCloudPlatform/cloud-sql-proxy/issues/848
    """

    place: Place

    def __init__(
        self,
        name: str,
        *,
        region: str,
        prefix: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        # No firewall rules: nothing comes in, and what the server asks for is answered.
        network = gcp.compute.Network(
            self.named("network"),
            name=prefix,
            description=f"The database of the MLflow server {prefix}, and the way to it",
            auto_create_subnetworks=False,
            opts=self.child(),
        )
        subnetwork = gcp.compute.Subnetwork(
            self.named("server"),
            name=prefix,
            region=region,
            network=network.id,
            ip_cidr_range=SERVER_RANGE,
            # Google's own APIs without an address on the internet.
            private_ip_google_access=True,
            opts=self.child(),
        )
        services = gcp.compute.GlobalAddress(
            self.named("services"),
            name=f"{prefix}-services",
            purpose="VPC_PEERING",
            address_type="INTERNAL",
            prefix_length=SERVICES_PREFIX,
            network=network.id,
            opts=self.child(),
        )
        gcp.servicenetworking.Connection(
            self.named("services"),
            network=network.id,
            service="servicenetworking.googleapis.com",
            reserved_peering_ranges=[services.name],
            # Cloud SQL keeps a deleted instance for days, to bring it back, and Google refuses to
            # delete the connection meanwhile; without the peering the network can go:
            # https://github.com/GoogleCloudPlatform/magic-modules/pull/18476
            deletion_policy="REMOVE_PEERING",
            opts=self.child(),
        )
        self.place = Place(id=network.id, network=network.name, subnetwork=subnetwork.name)
        self.register_outputs({"id": network.id})
