"""Cloud Run worker pools: one instance of each, a process that serves nothing.

https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.workerPools
"""

from __future__ import annotations

from fake_google.errors import Refused
from fake_google.project import Inputs, Outputs, Project
from fake_google.run.container import Service
from fake_google.run.services import check_container, container_environment, mount_sockets


def pool_of(project: Project, inputs: Inputs) -> str:
    location = inputs.get("location") or project.region
    return f"projects/{project.id}/locations/{location}/workerPools/{inputs['name']}"


def make_pool(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    name, template = inputs["name"], inputs["template"]
    container, email = template["containers"][0], template.get("serviceAccount") or ""
    check_container(project, inputs, template)
    if project.container is not None:
        if running := project.workers.pop(name, None):
            running.stop()
        sockets = project.state.short_directory() / "wrk"
        mount_sockets(project, template, container, email, root=sockets)
        worker = Service(
            state=project.state,
            name=f"worker {name}",
            # The declared interpreter is the image's.
            command=[project.container.command[0], *container["commands"][1:]],
            environment=container_environment(project, container, email, sockets=sockets),
            port=None,
            startup=None,
            liveness=None,
            say=lambda line: project.say(f"worker   {line}"),
            stopping=project.stopping,
            log="worker",
        )
        project.workers[name] = worker
        worker.start()
    return pool_of(project, inputs), {}


def delete_pool(project: Project, olds: Inputs, inputs: Inputs) -> None:
    if olds.get("deletionProtection") is not False:
        raise Refused(
            "cannot destroy worker pool without setting deletion_protection=false and running "
            "`pulumi up`"
        )
    if running := project.workers.pop(inputs["name"], None):
        running.stop()
