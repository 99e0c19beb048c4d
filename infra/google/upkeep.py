"""The upkeep job, a Cloud Run job with the server's image, and the schedule that starts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_gcp as gcp

from ..component import Component
from ..facts.names import account_id, upkeep_job
from ..settings.schema import UpkeepSettings
from .network import VpcAccess
from .scope import Scope
from .service_accounts import member_of
from .store_access import grant_stores

# Cloud SQL begins the daily backup within four hours of 03:00 UTC (database.py).
SCHEDULE = "30 7 * * *"
# The job itself begins nothing new after 50 minutes of cleanup and three hours of archival.
TIMEOUT_SECONDS = 4 * 3600
COMMAND = ("/opt/server/bin/python", "-m", "tracking_server.upkeep")
CPU, MEMORY = "1", "1Gi"
# The only secrets that the job reads.
SECRETS = ("artifact_url", "database_url")


class Upkeep(Component):
    """Runs the job as its own account, once a day, as an account that can only start this job.

    The job's account can't sign addresses, and reads neither the logins nor the key for the
    gateway's secrets. https://cloud.google.com/run/docs/execute/jobs-on-schedule
    """

    APIS = ("cloudscheduler",)

    # The job's account, and the job.
    account: pulumi.Output[str]
    job: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        scope: Scope,
        settings: UpkeepSettings,
        image: pulumi.Input[str],
        connection_name: pulumi.Output[str],
        bucket: pulumi.Input[str],
        secret_ids: Mapping[str, pulumi.Input[str]],
        secrets: Mapping[str, pulumi.Output[str]],
        vpc: VpcAccess | None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        account = self._account("upkeep", f"Upkeep job of {scope.prefix}", scope=scope)
        grants = grant_stores(
            "upkeep",
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
            "CLEANUP_AFTER_DAYS": str(settings.cleanup_after_days),
            "ARCHIVE_TRACES_AFTER_DAYS": str(settings.archive_traces_after_days),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        job = self._job(
            scope,
            env,
            account=account.email,
            image=image,
            connection_name=connection_name,
            vpc=vpc,
            after=grants,
        )
        self._schedule(scope, job)
        self.account, self.job = account.email, job.name
        self.register_outputs({"account": self.account, "job": self.job})

    def _account(self, what: str, display_name: str, *, scope: Scope) -> gcp.serviceaccount.Account:
        return gcp.serviceaccount.Account(
            self.named(what),
            account_id=account_id(scope.prefix, what),
            display_name=display_name,
            opts=self.child(),
        )

    def _job(
        self,
        scope: Scope,
        env: Mapping[str, pulumi.Input[str]],
        *,
        account: pulumi.Input[str],
        image: pulumi.Input[str],
        connection_name: pulumi.Input[str],
        vpc: VpcAccess | None,
        after: Sequence[pulumi.Resource],
    ) -> gcp.cloudrunv2.Job:
        run = gcp.cloudrunv2
        return run.Job(
            self.named("upkeep"),
            name=upkeep_job(scope.prefix),
            location=scope.region,
            # It holds no data.
            deletion_protection=False,
            template=run.JobTemplateArgs(
                parallelism=1,
                task_count=1,
                template=run.JobTemplateTemplateArgs(
                    service_account=account,
                    timeout=f"{TIMEOUT_SECONDS}s",
                    # The next day's run continues where a failed one has ended.
                    max_retries=0,
                    encryption_key=scope.kms_key,
                    vpc_access=_way_into(vpc) if vpc else None,
                    volumes=[
                        run.JobTemplateTemplateVolumeArgs(
                            name="cloudsql",
                            cloud_sql_instance=run.JobTemplateTemplateVolumeCloudSqlInstanceArgs(
                                instances=[connection_name]
                            ),
                        )
                    ],
                    containers=[
                        run.JobTemplateTemplateContainerArgs(
                            image=image,
                            commands=[*COMMAND],
                            envs=[
                                run.JobTemplateTemplateContainerEnvArgs(name=key, value=value)
                                for key, value in env.items()
                            ],
                            resources=run.JobTemplateTemplateContainerResourcesArgs(
                                limits={"cpu": CPU, "memory": MEMORY}
                            ),
                            volume_mounts=[
                                run.JobTemplateTemplateContainerVolumeMountArgs(
                                    name="cloudsql", mount_path="/cloudsql"
                                )
                            ],
                        )
                    ],
                ),
            ),
            opts=self._after_these(after),
        )

    def _after_these(self, others: Sequence[pulumi.Resource]) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions.merge(
            self.child(), pulumi.ResourceOptions(depends_on=[*others])
        )

    def _schedule(self, scope: Scope, job: gcp.cloudrunv2.Job) -> None:
        timer = self._account("timer", f"Starts the upkeep job of {scope.prefix}", scope=scope)
        starts = gcp.cloudrunv2.JobIamMember(
            self.named("timer-starts-upkeep"),
            name=job.name,
            location=scope.region,
            role="roles/run.invoker",
            member=member_of(timer),
            opts=self.child(),
        )
        uri = pulumi.Output.concat(
            "https://run.googleapis.com/v2/projects/",
            scope.project,
            f"/locations/{scope.region}/jobs/",
            job.name,
            ":run",
        )
        gcp.cloudscheduler.Job(
            self.named("upkeep"),
            name=upkeep_job(scope.prefix),
            region=scope.region,
            description=f"Starts the upkeep job of the MLflow server {scope.prefix}",
            schedule=SCHEDULE,
            time_zone="Etc/UTC",
            http_target=gcp.cloudscheduler.JobHttpTargetArgs(
                uri=uri,
                http_method="POST",
                oauth_token=gcp.cloudscheduler.JobHttpTargetOauthTokenArgs(
                    service_account_email=timer.email
                ),
            ),
            opts=self._after_these([starts]),
        )


def _way_into(vpc: VpcAccess) -> gcp.cloudrunv2.JobTemplateTemplateVpcAccessArgs:
    """Routes requests to private addresses through the network, as those of the service."""
    run = gcp.cloudrunv2
    return run.JobTemplateTemplateVpcAccessArgs(
        egress="PRIVATE_RANGES_ONLY",
        network_interfaces=[
            run.JobTemplateTemplateVpcAccessNetworkInterfaceArgs(
                network=vpc.network, subnetwork=vpc.subnetwork
            )
        ],
    )
