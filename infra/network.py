"""The private network: the database has an address in it, and the server a way into it."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from .component import Component

# Nothing else is in the network, so any private range does. Cloud Run takes 16 addresses at a time,
# two for an instance and, while a revision follows another, four:
# https://cloud.google.com/run/docs/configuring/vpc-direct-vpc#scale_up. With 4 connections each,
# no tier of Cloud SQL has enough for more than 250 instances.
SERVER_RANGE = "10.0.0.0/22"
# Google takes a /24 of it for Cloud SQL in each region, and it can't be made larger later:
# https://cloud.google.com/sql/docs/postgres/private-ip#allocated_ip_address_ranges
SERVICES_PREFIX = 20


class Network(Component):
    """A VPC of the stack's own, peered with the network that Cloud SQL is in.

    By private services access, not Private Service Connect: the socket that Cloud Run mounts takes
    an instance's private address where it has no public one, and knows no endpoints.
    https://github.com/GoogleCloudPlatform/cloud-sql-proxy/issues/848
    """

    # By its full name, as Cloud SQL wants it.
    id: pulumi.Output[str]
    name: pulumi.Output[str]
    subnetwork: pulumi.Output[str]

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
        self.id = network.id
        self.name = network.name
        self.subnetwork = subnetwork.name
        self.register_outputs({"id": self.id})
