"""Checks, before `pulumi up`, for anything that would make it fail: `make doctor STACK=dev`.

It changes nothing. It exits with 1 if `pulumi up` would fail, else with 0.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.facts.limits import PROJECT
from infra.settings.refusals import SettingsError
from infra.settings.schema import Settings

from . import availability, instances, names, permissions, policies, quota, tools
from .declared import Resource, resources
from .findings import Finding, Verdict, fix, not_checked, ok, printed, summary, would_fail
from .google import Answer, Credentials, Google, NoCredentials, log_in
from .project import (
    check_apis,
    check_billing,
    check_project,
    get_apis,
    get_billing,
    get_project,
)
from .stack import (
    Stack,
    State,
    ask_pulumi,
    check_pulumi,
    check_settings,
    check_stack,
    check_state,
    choose,
    settings_of,
    state_of,
)

ROOT = Path(__file__).parents[2]

# Concurrent requests to Google.
WORKERS = 12
AFTER_PROJECT = (
    "billing",
    "APIs",
    "permissions",
    "policies",
    "quota",
    "names",
    "instances",
    "region",
)


def examine(named: str | None, *, folder: Path) -> list[Finding]:
    """Runs all checks. `folder` has the program and the stacks' files."""
    pulumi = ask_pulumi(selected=named is None, folder=folder)
    stack = choose(named, selected=pulumi.selected, folder=folder)
    settings = settings_of(stack)
    with ThreadPoolExecutor(WORKERS) as pool:
        python = pool.submit(tools.look_for_python, folder)
        docker = pool.submit(tools.look_for_docker, stack.config)
        gcloud = pool.submit(tools.look_for_gcloud)
        login = pool.submit(log_in, stack.config)
        state = (
            pool.submit(state_of, stack.name, folder) if pulumi.user and not stack.trouble else None
        )
        builder = str(stack.config.get("mlflow-gcp:builder") or "docker")
        builds = not stack.config.get("mlflow-gcp:image")
        found = [
            check_stack(stack),
            *([] if stack.trouble else check_settings(settings)),
            tools.check_python(python.result()),
            *check_pulumi(pulumi),
            tools.check_docker(docker.result(), needed=builds and builder != "cloud-build"),
            tools.check_gcloud(gcloud.result(), needed=builds and builder == "cloud-build"),
        ]
        known = state.result() if state else State(known=False)
        if not stack.trouble:
            found.append(check_state(stack, known))
        found += on_google(login.result(), stack=stack, settings=settings, state=known, pool=pool)
    return found


def on_google(
    login: Credentials | NoCredentials,
    *,
    stack: Stack,
    settings: Settings | SettingsError,
    state: State,
    pool: ThreadPoolExecutor,
) -> list[Finding]:
    later = ", ".join(("project", *AFTER_PROJECT))
    if isinstance(login, NoCredentials):
        verdict = fix if login.missing else not_checked
        return [
            verdict("login", login.why, login.how),
            not_checked("Google Cloud", f"{later}: that requires a login"),
        ]
    found = [ok("login", login.account or "Application Default Credentials are fresh")]
    project = str(stack.config.get("gcp:project") or "")
    if not PROJECT.fullmatch(project):
        return [*found, not_checked("Google Cloud", f"{later}: that requires gcp:project")]
    google = Google(login=login, project=project)
    at_first = get_project(google, project)
    there = check_project(at_first, project)
    found.append(there)
    # If only the API for this request is off, the others may still respond.
    if there.verdict is not Verdict.OK and not at_first.off:
        rest = ", ".join(AFTER_PROJECT)
        return [*found, not_checked("Google Cloud", f"{rest}: that requires the project")]
    billing = pool.submit(get_billing, google, project)
    if isinstance(settings, SettingsError):
        rest = ", ".join(AFTER_PROJECT[1:])
        return [
            *found,
            check_billing(billing.result(), project),
            not_checked("Google Cloud", f"{rest}: that requires valid settings"),
        ]
    checks = of_settings(google, login=login, settings=settings, state=state, pool=pool)
    return [*found, check_billing(billing.result(), project), *checks]


def of_settings(
    google: Google,
    *,
    login: Credentials,
    settings: Settings,
    state: State,
    pool: ThreadPoolExecutor,
) -> list[Finding]:
    """Runs the checks that depend on the settings.

    It sends all requests first, so that they run concurrently.
    """
    project = settings.project
    declared = resources(settings)
    to_make = [each for each in declared if each.key not in state.made]

    def ask(question: Callable[..., Answer], *arguments: object) -> Callable[[], Answer]:
        return pool.submit(question, google, *arguments).result

    apis = _apis(declared)
    needed = permissions.on_project(to_make)
    others = permissions.elsewhere(to_make, existing_bucket=settings.existing_bucket)
    wanted = quota.of_compute(to_make)
    on = ask(get_apis, project, apis)
    granted = ask(permissions.get_granted, project, needed)
    theirs = [(other, ask(permissions.get_elsewhere, other)) for other in others]
    rules = {each: ask(policies.get_policy, project, each) for each in policies.CONSTRAINTS}
    of_run = {each: ask(quota.get_run_quota, project, each) for each in (quota.CPU, quota.MEMORY)}
    of_compute = ask(quota.get_compute_quota, project) if wanted else None
    taken = [(each, ask(names.get_resource, each)) for each in names.lookups(to_make, project)]
    regions = ask(availability.get_regions, project)
    existing = settings.database.existing_instance
    database = ask(availability.get_instance, project, existing) if existing else None
    listed = ask(instances.get_instances, project)
    tiers = None if existing else ask(availability.get_tiers, project)

    rights = granted()
    found = [
        check_apis(on(), project=project, apis=apis, granted=permissions.granted(rights)),
        *permissions.check_permissions(
            rights, project=project, account=login.account, needed=needed
        ),
    ]
    found += [
        permissions.check_elsewhere(answer(), other, account=login.account)
        for other, answer in theirs
    ]
    found += policies.check_policies(
        {each: answer() for each, answer in rules.items()}, policies.looked_at(to_make)
    )
    found += quota.check_run_quota(
        {each: answer() for each, answer in of_run.items()},
        project=project, region=settings.region, service=settings.service,
    )  # fmt: skip
    if of_compute:
        found += quota.check_compute_quota(of_compute(), project=project, wanted=wanted)
    found += names.check_names(
        [(lookup, answer()) for lookup, answer in taken],
        name=settings.name,
        state_known=state.known,
    )
    found += instances.check_instances(listed(), name=settings.name, state=state)
    found.append(availability.check_region(regions(), settings.region))
    if tiers:
        tier = settings.database.tier
        found.append(availability.check_tier(tiers(), tier=tier, region=settings.region))
    if database:
        found.append(availability.check_instance(database(), settings))
    return found


def _apis(declared: Sequence[Resource]) -> list[str]:
    # The order of the declared resources isn't fixed.
    return sorted(
        str(each.inputs["service"])
        for each in declared
        if each.type == "gcp:projects/service:Service"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m operations.doctor", description=__doc__)
    parser.add_argument("--stack", help="default: the stack that Pulumi has selected, or dev")
    given = parser.parse_args(arguments)
    found = examine(given.stack or None, folder=ROOT)
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    sys.stdout.write("\n".join([*printed(found, coloured=coloured), "", summary(found)]) + "\n")
    return int(would_fail(found))


if __name__ == "__main__":
    sys.exit(main())
