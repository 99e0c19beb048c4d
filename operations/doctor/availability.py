"""Checks that Google offers what the stack requires in its region, and its existing instance."""

from __future__ import annotations

from infra.facts.connection_name import ConnectionName
from infra.settings.schema import Settings

from .findings import Finding, fix, not_checked, ok
from .google import Answer, Google


def get_regions(google: Google, project: str) -> Answer:
    """https://cloud.google.com/run/docs/reference/rest/v1/projects.locations/list"""
    return google.get("run", f"v1/projects/{project}/locations", pageSize="200")


def check_region(answer: Answer, region: str) -> Finding:
    locations = answer.body.get("locations")
    if not answer.ok or not isinstance(locations, list):
        return not_checked(
            "region", f"Cloud Run in {region}: {answer.trouble or 'no list of locations'}"
        )
    offered = {each.get("locationId") for each in locations if isinstance(each, dict)}
    if region in offered:
        return ok("region", f"{region} has Cloud Run")
    return fix(
        "region",
        f"Cloud Run is not offered to the project in {region}",
        "pulumi config set gcp:region us-central1, or one of "
        "https://cloud.google.com/run/docs/locations",
    )


def get_tiers(google: Google, project: str) -> Answer:
    """https://cloud.google.com/sql/docs/postgres/admin-api/rest/v1/tiers/list"""
    return google.get("sqladmin", f"v1/projects/{project}/tiers")


def check_tier(answer: Answer, *, tier: str, region: str) -> Finding:
    items = answer.body.get("items")
    if not answer.ok or not isinstance(items, list):
        return not_checked("region", f"{tier} in {region}: {answer.trouble or 'no list of tiers'}")
    regions = {
        str(item.get("tier")): item.get("region") or [] for item in items if isinstance(item, dict)
    }
    # Custom sizes aren't listed.
    if tier not in regions:
        anywhere = any(region in offered for offered in regions.values())
        if anywhere:
            return ok("region", f"{region} has Cloud SQL")
    elif region in regions[tier]:
        return ok("region", f"{region} has Cloud SQL's {tier}")
    return fix(
        "region",
        f"Cloud SQL does not offer {tier} in {region}",
        "pulumi config set databaseTier db-custom-1-3840, or another region: "
        "pulumi config set gcp:region us-central1",
    )


def get_instance(google: Google, project: str, connection_name: str) -> Answer:
    instance = ConnectionName.parse(connection_name).instance
    return google.get("sqladmin", f"v1/projects/{project}/instances/{instance}")


def check_instance(answer: Answer, settings: Settings) -> Finding:
    named = str(settings.database.existing_instance)
    what = "existingDatabaseInstance"
    if answer.missing:
        return fix(
            what,
            f"{named} does not exist",
            "gcloud sql instances list --format 'value(connectionName)' lists the existing ones",
        )
    if not answer.ok:
        return not_checked(what, answer.trouble)
    version, state = str(answer.body.get("databaseVersion")), str(answer.body.get("state"))
    if str(answer.body.get("connectionName")) != named:
        return fix(
            what,
            f"{named} is set, but the instance is {answer.body.get('connectionName')}",
            f"pulumi config set existingDatabaseInstance {answer.body.get('connectionName')}",
        )
    if not version.startswith("POSTGRES_"):
        return fix(
            what,
            f"{named} is {version}; wanted PostgreSQL",
            "pulumi config set existingDatabaseInstance to another, or pulumi config rm it",
        )
    if state != "RUNNABLE":
        return fix(
            what,
            f"{named} is {state}",
            "start it: gcloud sql instances patch NAME --activation-policy ALWAYS",
        )
    return ok(what, f"{named}, {version}")
