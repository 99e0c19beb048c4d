"""A secured MLflow server on Google Cloud: the whole deployment, from settings to outputs."""

import pulumi

from infra.alerts import Alerts
from infra.apis import Apis
from infra.artifacts import Artifacts
from infra.database import Database
from infra.identity import Identity
from infra.image import Image
from infra.secrets import Secrets
from infra.service import Service
from infra.settings import load, stack_config

settings = load(stack_config())
project, region, name = settings.project, settings.region, settings.name

apis = Apis(
    "apis",
    project=project,
    builds_image=settings.image is None,
    in_cloud_build=settings.builder == "cloud-build",
    behind_iap=settings.access.mode == "iap",
    watched=bool(settings.alerts.email),
    budgeted=settings.alerts.monthly_budget > 0,
)
enabled = pulumi.ResourceOptions(depends_on=apis)

identity = Identity("identity", prefix=name, opts=enabled)

database = Database(
    "database",
    project=project,
    region=region,
    prefix=name,
    settings=settings.database,
    deletion_protection=settings.deletion_protection,
    server=identity.member,
    opts=enabled,
)

artifacts = Artifacts(
    "artifacts",
    project=project,
    prefix=name,
    location=settings.bucket_location,
    force_destroy=settings.bucket_force_destroy,
    server=identity.member,
    opts=enabled,
)

secrets = Secrets(
    "secrets",
    prefix=name,
    artifact_url=artifacts.url,
    database_url=database.url,
    tracking=settings.tracking,
    viewer=settings.viewer,
    encryption_key_version=settings.encryption_key_version,
    server=identity.member,
    opts=enabled,
)

image: pulumi.Input[str]
if settings.image:
    image = settings.image
else:
    image = Image(
        "image", project=project, region=region, prefix=name, builder=settings.builder, opts=enabled
    ).reference

service = Service(
    "service",
    project=project,
    project_number=apis.project_number,
    region=region,
    prefix=name,
    access=settings.access,
    settings=settings.service,
    image=image,
    server=identity.email,
    connection_name=database.connection_name,
    secrets=secrets.references,
    pool_size=settings.database.connections,
    deletion_protection=settings.deletion_protection,
    # Everything it boots with, grants too, or a first deployment races against them.
    opts=pulumi.ResourceOptions(depends_on=[apis, identity, database, artifacts, secrets]),
)

if settings.alerts.email:
    Alerts(
        "alerts",
        project=project,
        project_number=apis.project_number,
        region=region,
        prefix=name,
        settings=settings.alerts,
        database=settings.database,
        max_instances=settings.service.max_instances,
        connection_name=database.connection_name,
        uri=service.uri,
        opts=enabled,
    )

console = "https://console.cloud.google.com"
pulumi.export("tracking_uri", service.uri)
pulumi.export("tracking_username", settings.tracking.username)
pulumi.export("tracking_password", secrets.tracking_password)
if settings.viewer:
    pulumi.export("viewer_username", settings.viewer.username)
    pulumi.export("viewer_password", secrets.viewer_password)
pulumi.export("artifact_bucket", artifacts.bucket)
pulumi.export("service_account_email", identity.email)
pulumi.export("database_connection_name", database.connection_name)
pulumi.export("image", image)
pulumi.export(
    "console_links",
    {
        "service": f"{console}/run/detail/{region}/{name}/metrics?project={project}",
        "logs": f"{console}/run/detail/{region}/{name}/logs?project={project}",
        "database": pulumi.Output.format(
            "{0}/sql/instances/{1}/overview?project={2}",
            console,
            database.connection_name.apply(lambda connection: connection.split(":")[-1]),
            project,
        ),
        "artifacts": pulumi.Output.concat(
            f"{console}/storage/browser/", artifacts.bucket, f"?project={project}"
        ),
        "secrets": f"{console}/security/secret-manager?project={project}",
    },
)
