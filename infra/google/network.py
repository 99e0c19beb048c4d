"""The private network, which has the database's address and which the server connects through."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from ..component import Component
from ..settings.schema import ExistingNetwork
from .scope import Scope

# Nothing else uses the network, so any private range will do. Cloud Run reserves 16 addresses at a
# time: two for each instance, and four while one revision replaces another:
# https://cloud.google.com/run/docs/configuring/vpc-direct-vpc#scale_up. With 4 connections each,
# no tier of Cloud SQL has enough connections for more than 250 instances.
SERVER_RANGE = "10.0.0.0/22"
# Google uses a /24 of this range for Cloud SQL in each region. The range can't be enlarged later:
# https://cloud.google.com/sql/docs/postgres/private-ip#allocated_ip_address_ranges
SERVICES_PREFIX = 20


@dataclass(frozen=True, kw_only=True)
class VpcAccess:
    """The network with the database's address, and the subnetwork that the server connects from."""

    # The network's full name, which Cloud SQL requires.
    id: pulumi.Input[str]
    network: pulumi.Input[str]
    subnetwork: pulumi.Input[str]


def existing(found: ExistingNetwork, scope: Scope) -> VpcAccess:
    """Returns an existing VPC network, used as it is.

    It must already be peered with Google's network, once for everything that uses it:
    https://cloud.google.com/vpc/docs/configure-private-services-access. Without the peering, Cloud
    SQL refuses at once. The program doesn't look it up: a user who only previews a deployment may
    not have the permission.
    """
    network = f"projects/{found.project}/global/networks/{found.name}"
    if found.project == scope.project:
        return VpcAccess(id=network, network=found.name, subnetwork=found.subnetwork)
    # https://cloud.google.com/run/docs/configuring/shared-vpc-direct-vpc
    subnetwork = f"projects/{found.project}/regions/{scope.region}/subnetworks/{found.subnetwork}"
    return VpcAccess(id=network, network=network, subnetwork=subnetwork)


class Network(Component):
    """The stack's own VPC network, peered with the network that Cloud SQL is in.

    It uses private services access, not Private Service Connect: the socket that Cloud Run mounts
    connects to the private address of an instance without a public one, but doesn't support
    endpoints.
    https://github.com/GoogleCloudPlatform/cloud-sql-proxy/issues/848
    """

    APIS = ("compute", "servicenetworking")

    vpc: VpcAccess

    def __init__(
        self,
        name: str,
        *,
        scope: Scope,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        # No firewall rules: nothing connects into the network, and responses are always allowed.
        network = gcp.compute.Network(
            self.named("network"),
            name=scope.prefix,
            description=f"The database of the MLflow server {scope.prefix}, and the way to it",
            auto_create_subnetworks=False,
            opts=self.child(),
        )
        subnetwork = gcp.compute.Subnetwork(
            self.named("server"),
            name=scope.prefix,
            region=scope.region,
            network=network.id,
            ip_cidr_range=SERVER_RANGE,
            # Lets instances call Google's APIs without a public address.
            private_ip_google_access=True,
            opts=self.child(),
        )
        services = gcp.compute.GlobalAddress(
            self.named("services"),
            name=f"{scope.prefix}-services",
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
            # Cloud SQL keeps a deleted instance for some days, and Google refuses to delete the
            # connection until then. Once the peering is removed, the network can be deleted:
            # https://github.com/GoogleCloudPlatform/magic-modules/pull/18476
            deletion_policy="REMOVE_PEERING",
            # Meanwhile, a new network of the same name can only take the connection over:
            # https://github.com/hashicorp/terraform-provider-google/issues/3294
            update_on_creation_fail=True,
            opts=self.child(),
        )
        self.vpc = VpcAccess(id=network.id, network=network.name, subnetwork=subnetwork.name)
        self.register_outputs({"id": network.id})
