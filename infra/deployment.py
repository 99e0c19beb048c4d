"""The whole deployment, from settings to outputs: its components and how they are connected."""

from __future__ import annotations

from typing import Any

import pulumi

from . import docker_daemon
from .component import Component
from .facts import prices, versions
from .google.access import IAP_APIS
from .google.alerts import BUDGET_APIS, Alerts
from .google.apis import Apis
from .google.artifact_bucket import Artifacts
from .google.console import Console
from .google.database import Database
from .google.github_deployer import Deployer
from .google.image import CLOUD_BUILD_APIS, SOURCE, Image
from .google.kms_key import Encryption
from .google.load_balancer import LoadBalancer
from .google.network import Network, VpcAccess, existing
from .google.scope import Scope
from .google.secrets import Secrets
from .google.service import Service
from .google.service_accounts import Identity
from .google.upkeep import Upkeep
from .google.worker import Worker
from .settings.schema import Settings


def required_apis(settings: Settings) -> set[str]:
    """Returns the APIs of the components that the settings require."""
    alerts, iap = settings.alerts, settings.access.mode == "iap"
    builds = settings.image is None
    optional = (
        (builds, Image.APIS),
        (builds and settings.builder == "cloud-build", CLOUD_BUILD_APIS),
        (iap, IAP_APIS),
        (settings.private_network, Network.APIS),
        (settings.kms_key is not None, Encryption.APIS),
        (settings.load_balancer is not None, LoadBalancer.APIS),
        (bool(alerts.email), Alerts.APIS),
        (alerts.monthly_budget > 0, BUDGET_APIS),
        (settings.github is not None, Deployer.APIS),
        (settings.upkeep.wanted, Upkeep.APIS),
    )
    always = (Identity, Database, Artifacts, Secrets, Service)
    return {
        *(api for component in always for api in component.APIS),
        *(api for required, apis in optional if required for api in apis),
    }


def version(settings: Settings) -> str:
    """Returns the program's version and MLflow's, which isn't known of a ready image."""
    own = f"mlflow-gcp {versions.project(SOURCE)}"
    return own if settings.image else f"{own}, MLflow {versions.mlflow(SOURCE)}"


def declare(settings: Settings, *, parent: Component | None = None) -> dict[str, Any]:
    """Declares all resources, as children of `parent` if given, and returns the outputs by name."""
    scope = Scope(
        project=settings.project,
        region=settings.region,
        prefix=settings.name,
        kms_key=settings.kms_key,
    )
    if settings.image is None and settings.builder == "docker":
        docker_daemon.require()

    apis = Apis(
        "apis",
        project=scope.project,
        required=required_apis(settings),
        opts=parent.child() if parent else None,
    )
    enabled = pulumi.ResourceOptions(parent=parent, depends_on=apis)

    vpc: VpcAccess | None = None
    first: list[Component] = [apis]
    if settings.existing_network:
        vpc = existing(settings.existing_network, scope)
    elif settings.private_network:
        network = Network("network", scope=scope, opts=enabled)
        vpc = network.vpc
        first.append(network)
    if settings.kms_key:
        first.append(
            Encryption(
                "encryption",
                scope=scope,
                project_number=apis.project_number,
                key=settings.kms_key,
                builds_image=settings.image is None,
                opts=enabled,
            )
        )
    ready = pulumi.ResourceOptions(parent=parent, depends_on=first)

    identity = Identity("identity", scope=scope, opts=enabled)

    database = Database(
        "database",
        scope=scope,
        settings=settings.database,
        deletion_protection=settings.deletion_protection,
        network=vpc.id if vpc else None,
        server=identity.member,
        opts=ready,
    )

    artifacts = Artifacts(
        "artifacts",
        scope=scope,
        existing=settings.existing_bucket,
        location=settings.bucket_location,
        force_destroy=settings.bucket_force_destroy,
        deletion_protection=settings.deletion_protection,
        server=identity.member,
        signer=identity.signer_member,
        opts=ready,
    )

    secrets = Secrets(
        "secrets",
        scope=scope,
        artifact_url=artifacts.url,
        database_url=database.url,
        tracking=settings.tracking,
        viewer=settings.viewer,
        encryption_key_version=settings.encryption_key_version,
        deletion_protection=settings.deletion_protection,
        server=identity.member,
        opts=ready,
    )

    image: pulumi.Input[str]
    built: Image | None = None
    if settings.image:
        image = settings.image
    else:
        built = Image("image", scope=scope, builder=settings.builder, opts=ready)
        image = built.reference

    service = Service(
        "service",
        scope=scope,
        project_number=apis.project_number,
        access=settings.access,
        balanced=settings.load_balancer is not None,
        settings=settings.service,
        image=image,
        server=identity.email,
        signer=identity.signer_email,
        connection_name=database.connection_name,
        secrets=secrets.references,
        previous_until={
            user: login.previous_until
            for user, login in settings.logins.items()
            if login.previous_until
        },
        pool_size=settings.database.connections,
        deletion_protection=settings.deletion_protection,
        vpc=vpc,
        # The server needs all of this to boot, including the grants: without waiting for them, a
        # first deployment could fail.
        opts=pulumi.ResourceOptions(
            parent=parent, depends_on=[*first, identity, database, artifacts, secrets]
        ),
    )

    upkeep: Upkeep | None = None
    if settings.upkeep.wanted:
        upkeep = Upkeep(
            "upkeep",
            scope=scope,
            settings=settings.upkeep,
            image=image,
            connection_name=database.connection_name,
            bucket=artifacts.bucket,
            secret_ids=secrets.ids,
            secrets=secrets.references,
            vpc=vpc,
            # After the service, whose new version upgrades the database's schema.
            opts=pulumi.ResourceOptions(parent=parent, depends_on=[*first, service]),
        )

    worker: Worker | None = None
    if settings.service.jobs:
        worker = Worker(
            "worker",
            scope=scope,
            image=image,
            connection_name=database.connection_name,
            bucket=artifacts.bucket,
            secret_ids=secrets.ids,
            secrets=secrets.references,
            internal_networks=settings.service.internal_networks,
            vpc=vpc,
            # After the service, whose new version upgrades the database's schema.
            opts=pulumi.ResourceOptions(parent=parent, depends_on=[*first, service]),
        )

    tracking_uri: pulumi.Input[str] = service.uri
    balancer: LoadBalancer | None = None
    if settings.load_balancer:
        balancer = LoadBalancer(
            "load-balancer",
            scope=scope,
            settings=settings.load_balancer,
            service=service.service,
            opts=enabled,
        )
        tracking_uri = balancer.uri

    if settings.alerts.email:
        Alerts(
            "alerts",
            scope=scope,
            project_number=apis.project_number,
            settings=settings.alerts,
            database=settings.database,
            max_instances=settings.service.max_instances,
            accounts=settings.service.accounts,
            upkeep=settings.upkeep.wanted,
            connection_name=database.connection_name,
            uri=pulumi.Output.from_input(tracking_uri),
            opts=enabled,
        )

    deployer: Deployer | None = None
    if settings.github:
        accounts = {"server": identity.email}
        if built and built.builder_account:
            accounts["builder"] = built.builder_account
        if upkeep:
            accounts["upkeep"] = upkeep.account
        if worker:
            accounts["worker"] = worker.account
        deployer = Deployer(
            "deployer",
            scope=scope,
            repository=settings.github,
            service=service.service,
            instance=database.instance,
            secret_ids=secrets.ids,
            accounts=accounts,
            job=upkeep.job if upkeep else None,
            worker_pool=worker.pool if worker else None,
            images=built.repository if built else None,
            source_bucket=built.source_bucket if built else None,
            watched=bool(settings.alerts.email),
            opts=enabled,
        )

    outputs: dict[str, Any] = {"tracking_uri": tracking_uri}
    for who, login in settings.logins.items():
        outputs[f"{who}_username"] = login.username
        if login.password_secret:
            outputs[f"{who}_password_secret"] = login.password_secret
        else:
            outputs[f"{who}_password"] = secrets.passwords[who]
    if deployer:
        outputs["github_provider"] = deployer.provider
        outputs["github_deploy_account"] = deployer.deploy_account
        if deployer.review_account is not None:
            outputs["github_review_account"] = deployer.review_account
    if balancer:
        outputs["load_balancer_address"] = balancer.address
    return {
        **outputs,
        "artifact_bucket": artifacts.bucket,
        "service_account_email": identity.email,
        "database_connection_name": database.connection_name,
        "image": image,
        "version": version(settings),
        "monthly_cost_estimate": prices.summary(settings),
        "console_links": Console(scope=scope).links(
            bucket=artifacts.bucket, connection_name=database.connection_name
        ),
    }
