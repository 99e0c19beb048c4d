"""Cloud Run jobs, and the Cloud Scheduler jobs that start them on Google Cloud.

https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs,
https://cloud.google.com/scheduler/docs/reference/rest/v1/projects.locations.jobs

Nothing starts a job here by itself: `make upkeep` does, in a separate process.
"""

from __future__ import annotations

from fake_google.errors import NotFound, Refused
from fake_google.project import Inputs, JobProcess, Outputs, Project
from fake_google.run.services import check_container, container_environment, mount_sockets


def job_of(project: Project, inputs: Inputs) -> str:
    location = inputs.get("location") or project.region
    return f"projects/{project.id}/locations/{location}/jobs/{inputs['name']}"


def make_job(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    template = inputs["template"]["template"]
    container, email = template["containers"][0], template.get("serviceAccount") or ""
    check_container(project, inputs, template)
    if project.container is not None:
        sockets = project.state.short_directory() / "job"
        mount_sockets(project, template, container, email, root=sockets)
        # The declared interpreter is the image's.
        command = [project.container.command[0], *container["commands"][1:]]
        environment = container_environment(project, container, email, sockets=sockets)
        project.jobs[inputs["name"]] = JobProcess(command, environment)
    return job_of(project, inputs), {}


def delete_job(project: Project, olds: Inputs, inputs: Inputs) -> None:
    if olds.get("deletionProtection") is not False:
        raise Refused(
            "cannot destroy job without setting deletion_protection=false and running `pulumi up`"
        )
    project.jobs.pop(inputs["name"], None)


def schedule_of(project: Project, inputs: Inputs) -> str:
    return f"projects/{project.id}/locations/{inputs['region']}/jobs/{inputs['name']}"


def make_schedule(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    # https://cloud.google.com/scheduler/docs/configuring/cron-job-schedules
    if len(inputs["schedule"].split()) != 5:
        raise Refused("Error 400: Schedule or time zone is invalid.")
    email = inputs["httpTarget"]["oauthToken"]["serviceAccountEmail"]
    if email not in project.keys:
        raise NotFound(
            'Error 403: The principal (user or service account) lacks IAM permission "iam.'
            f'serviceAccounts.actAs" for the resource "{email}" (or the resource may not exist).'
        )
    return schedule_of(project, inputs), {}
