"""Cloud SQL: instances, databases and users, checked as its Admin API does.

https://cloud.google.com/sql/docs/postgres/admin-api/rest/v1
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fake_google.errors import NotFound, Refused
from fake_google.kms import check_key
from fake_google.network import check_peered
from fake_google.project import Inputs, Outputs, Project
from fake_google.resource_type import last
from fake_google.sql.postgres import InstanceSettings, Postgres, RecordedInstance
from infra.facts import tiers
from infra.facts.connection_name import ConnectionName
from infra.facts.regions import REGIONS

INSTANCE = "gcp:sql/databaseInstance:DatabaseInstance"
_DISK_GB = 10


DATABASE_DEFAULTS = {"charset": "UTF8", "collation": "en_US.UTF8"}


def make_instance(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    instance = inputs["name"]
    declared = inputs.get("settings") or {}
    network = declared.get("ipConfiguration") or {}
    region = inputs.get("region") or project.region
    if region not in REGIONS:
        raise Refused(f"Error 400: Invalid request: Invalid value for region: {region}.")
    private = network.get("privateNetwork")
    if not private and network.get("ipv4Enabled") is False:
        raise Refused(
            "Error 400: Invalid request: At least one of Public IP or Private IP or PSC "
            "connectivity must be enabled."
        )
    if private:
        check_peered(project, private, instance)
    check_key(project, inputs.get("encryptionKeyName"), api="sqladmin", location=region)
    settings = InstanceSettings(
        connection_name=ConnectionName(project=project.id, region=region, instance=instance),
        major=int(last(inputs["databaseVersion"].replace("_", "/"))),
        tier=declared["tier"],
        ssl_mode=network.get("sslMode") or InstanceSettings.ssl_mode,
        connector_required=declared.get("connectorEnforcement") == "REQUIRED",
        authorized_networks=tuple(
            entry["value"] for entry in network.get("authorizedNetworks") or ()
        ),
        flags=tuple((flag["name"], flag["value"]) for flag in declared.get("databaseFlags") or ()),
    )
    _check_tier(settings, declared.get("edition"))
    _resize(project, instance, int(declared.get("diskSize") or _DISK_GB))
    found = project.databases.get(instance)
    if found is None:
        made = Postgres if project.container else RecordedInstance
        project.databases[instance] = made(state=project.state, settings=settings, say=project.say)
        project.databases[instance].start()
    elif settings != found.settings:
        if settings.major < found.settings.major:
            raise Refused("Error 400: Invalid request: Database version downgrade is not allowed.")
        found.stop()
        found.settings = settings
        found.start()
    address = "127.0.0.1"
    kinds = [] if network.get("ipv4Enabled") is False else [("publicIpAddress", "PRIMARY")]
    kinds += [("privateIpAddress", "PRIVATE")] if private else []
    return instance, {
        "connectionName": str(settings.connection_name),
        "firstIpAddress": address,
        **{output: address for output, _ in kinds},
        "ipAddresses": [
            {"ipAddress": address, "type": kind, "timeToRetire": ""} for _, kind in kinds
        ],
    }


def _resize(project: Project, instance: str, gigabytes: int) -> None:
    current = project.disks.get(instance, 0)
    if gigabytes < current:
        raise Refused(
            "Error, failed to update instance settings: googleapi: Error 400: Invalid request: The "
            f"disk size cannot decrease. Current size: {current} GB, requested: {gigabytes} GB."
        )
    project.disks[instance] = gigabytes


def grow_disk(project: Project, instance: str, gigabytes: int) -> None:
    """Enlarges an instance's disk as Cloud SQL does when the disk is nearly full."""
    _resize(project, instance, gigabytes)
    live = project.live[INSTANCE, instance]
    settings = {**live.inputs["settings"], "diskSize": gigabytes}
    live.inputs = {**live.inputs, "settings": settings}
    live.outputs = {**live.outputs, "settings": settings}


def described(project: Project, arguments: Inputs) -> list[Outputs]:
    """https://www.pulumi.com/registry/packages/gcp/api-docs/sql/getdatabaseinstances/"""
    return [
        {"name": inputs["name"], "settings": [{"diskSize": project.disks[inputs["name"]]}]}
        for inputs in project.all(INSTANCE)
        if arguments.get("region") in (None, inputs.get("region") or project.region)
    ]


def _check_tier(settings: InstanceSettings, edition: str | None) -> None:
    """https://cloud.google.com/sql/docs/postgres/editions-intro"""
    # Since PostgreSQL 16 the default is ENTERPRISE_PLUS.
    wanted = edition or ("ENTERPRISE_PLUS" if settings.major >= 16 else "ENTERPRISE")
    tier = tiers.parse(settings.tier)
    if tier is None or tier.edition != wanted:
        raise Refused(
            f"Error 400: Invalid request: Invalid Tier ({settings.tier}) for ({wanted}) Edition. "
            "Use a predefined Tier like db-perf-optimized-N-* instead."
        )


def sent_instance(olds: Inputs, news: Inputs) -> Inputs:
    """Returns an instance's new inputs with the disk's size in the caller's state, if it is larger.

    The provider doesn't ask Google for the size before it sends a change:
    https://github.com/pulumi/pulumi-gcp/issues/2307
    """
    settings = news["settings"]
    if settings.get("diskAutoresize") is False:
        return news
    known = [int(each["settings"].get("diskSize") or 0) for each in (olds, news)]
    return {**news, "settings": {**settings, "diskSize": max(*known, _DISK_GB)}}


def same_instance(key: str, old: Any, new: Any) -> bool:
    """Ignores a disk that is larger than declared, because it has grown automatically."""
    if key == "settings" and new.get("diskAutoresize") is not False:
        sizes = [each["diskSize"] for each in (old, new) if each.get("diskSize")]
        # In a preview, the size of an instance that is replaced is an unknown value.
        known = bool(sizes) and all(isinstance(size, int) for size in sizes)
        return bool(old == ({**new, "diskSize": max(sizes)} if known else new))
    return bool(old == new)


def leaves_network(old: Inputs, new: Inputs) -> frozenset[str]:
    """Returns the inputs that replace an instance because its private address can't be removed.

    As the provider's `privateNetworkCustomizeDiff` does.
    """

    def network(inputs: Inputs) -> str:
        configuration = (inputs.get("settings") or {}).get("ipConfiguration") or {}
        return str(configuration.get("privateNetwork") or "")

    return frozenset({"settings"} if network(old) and not network(new) else ())


def delete_instance(project: Project, olds: Inputs, inputs: Inputs) -> None:
    if olds.get("deletionProtection") is not False:
        raise Refused(
            "Error, failed to delete instance because deletion_protection is set to true. Set it "
            "to false to proceed with instance deletion"
        )
    if inputs["settings"].get("deletionProtectionEnabled"):
        raise Refused(
            "Error, failed to delete instance: googleapi: Error 400: The instance is protected. "
            "Please disable the deletion protection and try again."
        )
    project.databases.pop(inputs["name"]).delete()
    del project.disks[inputs["name"]]


def instance_of(project: Project, instance: str) -> Postgres | RecordedInstance:
    database = project.databases.get(instance)
    if database is None:
        raise NotFound(f"Error 404: The Cloud SQL instance {instance!r} does not exist.")
    return database


def name_of(what: str) -> Callable[[Project, Inputs], str]:
    def taken(project: Project, inputs: Inputs) -> str:
        return f"projects/{project.id}/instances/{inputs['instance']}/{what}/{inputs['name']}"

    return taken


def make_database(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    instance_of(project, inputs["instance"]).create_database(inputs["name"])
    return name_of("databases")(project, inputs), dict(DATABASE_DEFAULTS)


def delete_database(project: Project, olds: Inputs, inputs: Inputs) -> None:
    if olds.get("deletionPolicy") != "ABANDON":
        instance_of(project, inputs["instance"]).drop_database(inputs["name"])


def make_user(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    instance_of(project, inputs["instance"]).create_user(inputs["name"], inputs["password"])
    return f"{inputs['name']}//{inputs['instance']}", {}


def imported_user(given: str) -> str:
    """Returns a user's id from `project/instance/name`."""
    _project, instance, name = given.split("/")
    return f"{name}//{instance}"


def delete_user(project: Project, olds: Inputs, inputs: Inputs) -> None:
    if olds.get("deletionPolicy") != "ABANDON":
        instance_of(project, inputs["instance"]).drop_user(inputs["name"])
