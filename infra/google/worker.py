"""The worker that runs MLflow's jobs: a Cloud Run worker pool with the server's image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_gcp as gcp

from ..component import Component
from ..facts.limits import WORKER_CPU, WORKER_GIBIBYTES
from ..facts.names import account_id, worker_pool
from .network import VpcAccess
from .scope import Scope
from .service_accounts import member_of
from .store_access import grant_stores

COMMAND = ("/opt/server/bin/python", "-m", "tracking_server.jobs")
# The only secrets that the worker reads.
SECRETS = ("artifact_url", "database_url", "kek_passphrase")


class Worker(Component):
    """Runs one instance of the worker as its own account, which can't sign addresses.

    It reads no login: a job reaches the data as the worker, and models through the worker's own
    gateway. https://cloud.google.com/run/docs/deploy-worker-pools
    """

    # The worker's account, and the worker pool.
    account: pulumi.Output[str]
    pool: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        scope: Scope,
        image: pulumi.Input[str],
        connection_name: pulumi.Output[str],
        bucket: pulumi.Input[str],
        secret_ids: Mapping[str, pulumi.Input[str]],
        secrets: Mapping[str, pulumi.Output[str]],
        internal_networks: Sequence[str],
        vpc: VpcAccess | None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        account = gcp.serviceaccount.Account(
            self.named("worker"),
            account_id=account_id(scope.prefix, "worker"),
            display_name=f"Worker of {scope.prefix}, for MLflow's jobs",
            opts=self.child(),
        )
        grants = grant_stores(
            "worker",
            scope=scope,
            member=member_of(account),
            connection_name=connection_name,
            bucket=bucket,
            secret_ids=secret_ids,
            reads=SECRETS,
            of=self,
        )
        env: dict[str, pulumi.Input[str]] = {
            "GCP_PROJECT": scope.project,
            **{f"{key.upper()}_SECRET": secrets[key] for key in SECRETS},
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        if internal_networks:
            env["INTERNAL_NETWORKS"] = ",".join(internal_networks)
        pool = self._pool(
            scope,
            env,
            account=account.email,
            image=image,
            connection_name=connection_name,
            vpc=vpc,
            after=grants,
        )
        self.account, self.pool = account.email, pool.name
        self.register_outputs({"account": self.account, "pool": self.pool})

    def _pool(
        self,
        scope: Scope,
        env: Mapping[str, pulumi.Input[str]],
        *,
        account: pulumi.Input[str],
        image: pulumi.Input[str],
        connection_name: pulumi.Input[str],
        vpc: VpcAccess | None,
        after: Sequence[pulumi.Resource],
    ) -> gcp.cloudrunv2.WorkerPool:
        run = gcp.cloudrunv2
        return run.WorkerPool(
            self.named("worker"),
            name=worker_pool(scope.prefix),
            location=scope.region,
            # It holds no data.
            deletion_protection=False,
            # Another instance would run no more jobs: MLflow limits those of each kind.
            scaling=run.WorkerPoolScalingArgs(scaling_mode="MANUAL", manual_instance_count=1),
            template=run.WorkerPoolTemplateArgs(
                service_account=account,
                encryption_key=scope.kms_key,
                vpc_access=_way_into(vpc) if vpc else None,
                volumes=[
                    run.WorkerPoolTemplateVolumeArgs(
                        name="cloudsql",
                        cloud_sql_instance=run.WorkerPoolTemplateVolumeCloudSqlInstanceArgs(
                            instances=[connection_name]
                        ),
                    )
                ],
                containers=[
                    run.WorkerPoolTemplateContainerArgs(
                        image=image,
                        commands=[*COMMAND],
                        envs=[
                            run.WorkerPoolTemplateContainerEnvArgs(name=key, value=value)
                            for key, value in env.items()
                        ],
                        resources=run.WorkerPoolTemplateContainerResourcesArgs(
                            limits={"cpu": str(WORKER_CPU), "memory": f"{WORKER_GIBIBYTES}Gi"}
                        ),
                        volume_mounts=[
                            run.WorkerPoolTemplateContainerVolumeMountArgs(
                                name="cloudsql", mount_path="/cloudsql"
                            )
                        ],
                    )
                ],
            ),
            opts=pulumi.ResourceOptions.merge(
                self.child(), pulumi.ResourceOptions(depends_on=[*after])
            ),
        )


def _way_into(vpc: VpcAccess) -> gcp.cloudrunv2.WorkerPoolTemplateVpcAccessArgs:
    """Routes requests to private addresses through the network, as those of the service."""
    run = gcp.cloudrunv2
    return run.WorkerPoolTemplateVpcAccessArgs(
        egress="PRIVATE_RANGES_ONLY",
        network_interfaces=[
            run.WorkerPoolTemplateVpcAccessNetworkInterfaceArgs(
                network=vpc.network, subnetwork=vpc.subnetwork
            )
        ],
    )
