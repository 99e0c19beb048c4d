"""The Cloud Run service that runs the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_gcp as gcp

from ..component import Component
from ..facts.limits import mebibytes
from ..settings.schema import AccessSettings, ServiceSettings
from .access import audiences, grant, iap_audience, ingress, invoker_check_off
from .network import VpcAccess
from .scope import Scope

# Cloud Run sends probes as HTTP/1, even to an h2c port; the server supports both.
HEALTH = "/health"
# The longest start that Cloud Run waits for. Frequent probes cost nothing and let a cold start end
# as soon as the server is up.
STARTUP_SECONDS = 240
STARTUP_PERIOD = 2


def allowed_hosts(
    *, name: str, region: str, project_number: str, custom_domains: Sequence[str]
) -> str:
    """Returns the host names that the server accepts. It refuses others, to stop DNS rebinding.

    A service has two addresses. The address with the hash isn't known before the service exists.
    """
    return ",".join(
        (f"{name}-{project_number}.{region}.run.app", f"{name}-*.a.run.app", *custom_domains)
    )


def _way_into(vpc: VpcAccess) -> gcp.cloudrunv2.ServiceTemplateVpcAccessArgs:
    """Routes requests to private addresses through the network, and all others as usual.

    https://cloud.google.com/run/docs/configuring/vpc-direct-vpc
    """
    return gcp.cloudrunv2.ServiceTemplateVpcAccessArgs(
        egress="PRIVATE_RANGES_ONLY",
        network_interfaces=[
            gcp.cloudrunv2.ServiceTemplateVpcAccessNetworkInterfaceArgs(
                network=vpc.network, subnetwork=vpc.subnetwork
            )
        ],
    )


class Service(Component):
    APIS = ("run",)

    uri: pulumi.Output[str]
    service: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        scope: Scope,
        project_number: pulumi.Input[str],
        access: AccessSettings,
        balanced: bool,
        settings: ServiceSettings,
        image: pulumi.Input[str],
        server: pulumi.Input[str],
        signer: pulumi.Input[str],
        connection_name: pulumi.Input[str],
        secrets: Mapping[str, pulumi.Output[str]],
        previous_until: Mapping[str, str],
        pool_size: int,
        deletion_protection: bool,
        vpc: VpcAccess | None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        env: dict[str, pulumi.Input[str]] = {
            "GCP_PROJECT": scope.project,
            **{f"{key.upper()}_SECRET": reference for key, reference in secrets.items()},
            "ARTIFACTS": settings.artifacts,
            "ARTIFACT_SIGNER": signer,
            "MLFLOW_SERVER_ALLOWED_HOSTS": pulumi.Output.from_input(project_number).apply(
                lambda number: allowed_hosts(
                    name=scope.prefix,
                    region=scope.region,
                    project_number=number,
                    custom_domains=settings.custom_domains,
                )
            ),
            "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(pool_size),
            # The server needs Cloud Run's limit too: requests that clients gave up still run.
            "MAX_CONCURRENCY": str(settings.concurrency),
            # One process uses one CPU.
            "WEB_CONCURRENCY": str(settings.cpu),
            "MEMORY_MIB": str(mebibytes(settings.memory)),
            "MLFLOW_DISABLE_TELEMETRY": "false" if settings.telemetry else "true",
        }
        if settings.accounts:
            env["ACCOUNTS_DEFAULT_PERMISSION"] = settings.default_permission
        if settings.accounts and access.mode == "iap":
            env["IAP_AUDIENCE"] = iap_audience(scope, project_number)
            if settings.administrators:
                env["ACCOUNTS_ADMINISTRATORS"] = ",".join(settings.administrators)
            if settings.domains:
                env["ACCOUNTS_DOMAINS"] = ",".join(settings.domains)
        if settings.jobs:
            env["JOBS"] = "1"
        if settings.internal_networks:
            env["INTERNAL_NETWORKS"] = ",".join(settings.internal_networks)
        for user, until in previous_until.items():
            env[f"{user.upper()}_PREVIOUS_PASSWORD_UNTIL"] = until
        if balanced:
            # The load balancer's address is the last in X-Forwarded-For, after the client's.
            env["TRUSTED_PROXIES"] = "1"
        service = gcp.cloudrunv2.Service(
            self.named("server"),
            name=scope.prefix,
            location=scope.region,
            ingress=ingress(access, balanced=balanced),
            deletion_protection=deletion_protection,
            invoker_iam_disabled=invoker_check_off(access),
            iap_enabled=access.mode == "iap",
            custom_audiences=audiences(access, settings.custom_domains),
            # For all revisions together: two revisions share the limit during a rollout.
            scaling=gcp.cloudrunv2.ServiceScalingArgs(max_instance_count=settings.max_instances),
            # Explicit, so that `up --refresh` moves traffic back from a revision pinned by hand.
            traffics=[
                gcp.cloudrunv2.ServiceTrafficArgs(
                    type="TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", percent=100
                )
            ],
            template=gcp.cloudrunv2.ServiceTemplateArgs(
                service_account=server,
                timeout=f"{settings.request_timeout}s",
                encryption_key=scope.kms_key,
                vpc_access=_way_into(vpc) if vpc else None,
                max_instance_request_concurrency=settings.concurrency,
                scaling=gcp.cloudrunv2.ServiceTemplateScalingArgs(
                    min_instance_count=settings.min_instances,
                    max_instance_count=settings.max_instances,
                ),
                volumes=[
                    gcp.cloudrunv2.ServiceTemplateVolumeArgs(
                        name="cloudsql",
                        cloud_sql_instance=gcp.cloudrunv2.ServiceTemplateVolumeCloudSqlInstanceArgs(
                            instances=[connection_name]
                        ),
                    )
                ],
                containers=[
                    gcp.cloudrunv2.ServiceTemplateContainerArgs(
                        image=image,
                        envs=[
                            gcp.cloudrunv2.ServiceTemplateContainerEnvArgs(name=key, value=value)
                            for key, value in env.items()
                        ],
                        # HTTP/2 without TLS: Cloud Run limits HTTP/1 requests to 32 MiB.
                        ports=gcp.cloudrunv2.ServiceTemplateContainerPortsArgs(
                            name="h2c", container_port=8080
                        ),
                        resources=gcp.cloudrunv2.ServiceTemplateContainerResourcesArgs(
                            limits={"cpu": str(settings.cpu), "memory": settings.memory},
                            # Google charges only while requests run; if this is unset, always.
                            cpu_idle=True,
                            startup_cpu_boost=True,
                        ),
                        volume_mounts=[
                            gcp.cloudrunv2.ServiceTemplateContainerVolumeMountArgs(
                                name="cloudsql", mount_path="/cloudsql"
                            )
                        ],
                        startup_probe=gcp.cloudrunv2.ServiceTemplateContainerStartupProbeArgs(
                            http_get=gcp.cloudrunv2.ServiceTemplateContainerStartupProbeHttpGetArgs(
                                path=HEALTH
                            ),
                            period_seconds=STARTUP_PERIOD,
                            timeout_seconds=1,
                            failure_threshold=STARTUP_SECONDS // STARTUP_PERIOD,
                        ),
                        # Slow to fail: a busy server must not be restarted.
                        liveness_probe=gcp.cloudrunv2.ServiceTemplateContainerLivenessProbeArgs(
                            http_get=gcp.cloudrunv2.ServiceTemplateContainerLivenessProbeHttpGetArgs(
                                path=HEALTH
                            ),
                            period_seconds=30,
                            timeout_seconds=10,
                            failure_threshold=4,
                        ),
                    )
                ],
            ),
            # Without `protect`, `pulumi destroy` would delete the grants before Google refuses.
            opts=self.child(protect=deletion_protection),
        )
        grant(
            access=access,
            service=service,
            project=scope.project,
            project_number=project_number,
            of=self,
        )
        self.uri = service.uri
        self.service = service.name
        self.register_outputs({"uri": self.uri})
