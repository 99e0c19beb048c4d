"""Cloud Run: services, their environment, and the connector's sockets.

https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.services
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from fake_google.artifact_registry import check_image
from fake_google.errors import BootRefused, NotFound, Refused, Unsupported
from fake_google.iam import policy as iam
from fake_google.iap_front import Front
from fake_google.kms import check_key
from fake_google.network import check_ways, subnetworks, ways
from fake_google.ports import free_port
from fake_google.project import PROJECT_NUMBER, Inputs, Outputs, Project
from fake_google.resource_type import last
from fake_google.run.container import BootFailed, Probe, Service, base_environment
from fake_google.sql.instances import INSTANCE, instance_of
from infra.facts.connection_name import ConnectionName
from infra.facts.regions import REGIONS


def name_of(project: Project, inputs: Inputs) -> str:
    location = inputs.get("location") or project.region
    return f"projects/{project.id}/locations/{location}/services/{inputs['name']}"


def make_service(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    name, template = inputs["name"], inputs["template"]
    container = template["containers"][0]
    email = template.get("serviceAccount") or ""
    check_container(project, inputs, template)
    if project.container is None:
        digest = hashlib.sha256(name_of(project, inputs).encode()).hexdigest()[:10]
        uri = f"https://{name}-{digest}-uc.a.run.app"
        refusals = [*_unreadable(project, container, email)]
        refusals += [said for said, _ in _connections(project, template, container, email) if said]
        if refusals:
            why = "\n".join(["Error waiting to create Service:", *refusals])
            raise BootRefused(why, name_of(project, inputs), {"uri": uri})
        return name_of(project, inputs), {"uri": uri}
    if running := project.services.pop(name, None):
        project.stop_front(name)
        running.stop()
    environment = {
        **container_environment(project, container, email, sockets=project.cloudsql_root()),
        "PORT": str(project.container.port),
        "BIND_ADDRESS": "127.0.0.1",
        "K_SERVICE": name,
        "K_REVISION": f"{name}-00001-local",
        "K_CONFIGURATION": name,
    }
    # The service must accept its own address, which isn't a name under run.app here.
    if hosts := environment.get("MLFLOW_SERVER_ALLOWED_HOSTS"):
        environment["MLFLOW_SERVER_ALLOWED_HOSTS"] = f"{hosts},127.0.0.1,localhost"
    port = project.container.port
    audience = environment.get("IAP_AUDIENCE") if inputs.get("iapEnabled") else None
    if audience:
        # The front has the container's port.
        port = free_port()
        environment |= {"PORT": str(port), "IAP_KEYS": project.iap_keys}
    mount_sockets(project, template, container, email, root=project.cloudsql_root())
    service = Service(
        state=project.state,
        name=f"server {name}",
        command=project.container.command,
        environment=environment,
        port=port,
        startup=Probe.declared(container.get("startupProbe")),
        liveness=Probe.declared(container.get("livenessProbe")),
        say=lambda line: project.say(f"server   {line}"),
        stopping=project.stopping,
    )
    limits = (container.get("resources") or {}).get("limits") or {}
    declared = ", ".join(f"{name} {limits[name]}" for name in sorted(limits))
    project.say(f"starting the server (on Google Cloud it has {declared})")
    project.services[name] = service
    outputs = {"uri": service.address}
    try:
        service.start()
    except BootFailed as failed:
        raise BootRefused(str(failed), name_of(project, inputs), outputs) from None
    if audience:
        front = Front(
            signer=project.iap_signer,
            audience=audience,
            upstream=service.address,
            members=lambda: callers(project, inputs),
        )
        service.address = project.serve_front(name, front, project.container.port)
        outputs = {"uri": service.address}
    return name_of(project, inputs), outputs


def check_container(project: Project, inputs: Inputs, template: Inputs) -> None:
    """Refuses what Google refuses about a service's or a job's container."""
    email = template.get("serviceAccount") or ""
    if email not in project.keys:
        raise NotFound(
            "Error 403: Permission 'iam.serviceaccounts.actAs' denied on service account "
            f"{email!r} (or it may not exist)."
        )
    location = inputs.get("location") or project.region
    if location not in REGIONS:
        raise Refused(f"Error 400: Location {location} is not found or access is unauthorized.")
    check_key(project, template.get("encryptionKey"), api="run", location=location)
    check_ways(project, {"template": template}, location=location)
    check_image(project, template["containers"][0]["image"])


def container_environment(
    project: Project, container: Inputs, email: str, *, sockets: Path
) -> dict[str, str]:
    """Returns the variables of a container that runs as the account on this computer."""
    return {
        **base_environment(project.state.directory("home")),
        **_declared_environment(container),
        # Grants take effect at once here.
        "BOOT_PATIENCE": "10",
        **project.metadata_environment(email),
        "STORAGE_EMULATOR_HOST": project.storage_endpoint,
        "SECRET_MANAGER_ENDPOINT": project.secret_manager_endpoint,
        "IAM_CREDENTIALS_ENDPOINT": project.iam_credentials_endpoint,
        "CLOUDSQL_ROOT": str(sockets),
    }


def delete_service(project: Project, olds: Inputs, inputs: Inputs) -> None:
    if olds.get("deletionProtection") is not False:
        raise Refused(
            "cannot destroy service without setting deletion_protection=false and running "
            "`pulumi up`"
        )
    project.reserved |= subnetworks(project, inputs)
    if running := project.services.pop(inputs["name"], None):
        project.stop_front(inputs["name"])
        running.stop()


# https://cloud.google.com/run/docs/securing/ingress
_LET_IN = {
    "INGRESS_TRAFFIC_INTERNAL_ONLY": "everybody in the project's VPC networks",
    "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER": "everybody, through the load balancer,",
}


def callers(project: Project, inputs: Inputs) -> list[str]:
    """Returns the callers that reach the server, which then asks for the password."""
    location = inputs.get("location") or project.region
    service = iam.run_service(project.id, location, inputs["name"])
    invokers = project.policy.holders("run.routes.invoke", service)
    if inputs.get("iapEnabled"):
        # https://cloud.google.com/run/docs/securing/identity-aware-proxy-cloud-run
        agent = f"serviceAccount:service-{PROJECT_NUMBER}@gcp-sa-iap.iam.gserviceaccount.com"
        web = iam.web_service(PROJECT_NUMBER, location, inputs["name"])
        users = project.policy.holders("iap.webServiceVersions.accessViaIAP", web)
        return users if {agent, iam.EVERYONE} & {*invokers} else []
    if inputs.get("invokerIamDisabled") or iam.EVERYONE in invokers:
        return [_LET_IN.get(inputs.get("ingress") or "", iam.EVERYONE)]
    return invokers


def _declared_environment(container: Inputs) -> dict[str, str]:
    environment = {}
    for entry in container.get("envs") or ():
        if entry.get("value") is None:
            raise Unsupported(f"The value of {entry['name']} comes from elsewhere: {entry!r}.")
        environment[entry["name"]] = entry["value"]
    return environment


def _unreadable(project: Project, container: Inputs, email: str) -> list[str]:
    """Returns the secrets that would make the server's boot fail, if no server is started."""
    said = []
    for key, reference in _declared_environment(container).items():
        if not key.endswith("_SECRET"):
            continue
        secret_id, _, version = reference.partition("/versions/")
        permission = "secretmanager.versions.access"
        if not project.policy.allowed(email, permission, iam.secret(project.id, secret_id)):
            said.append(f"Permission '{permission}' denied for {key} {reference}.")
        elif (project.secrets.versions(secret_id) or {}).get(version, {}).get("state") != "ENABLED":
            said.append(f"Secret Version [{reference}] of {key} is not there or not enabled.")
    return said


def _connections(
    project: Project, template: Inputs, container: Inputs, email: str
) -> list[tuple[str, ConnectionName]]:
    """Returns, for each instance to connect to, why Cloud Run's connector can't, and its name.

    https://cloud.google.com/sql/docs/postgres/connect-run
    """
    mounted = {
        mount["name"]
        for mount in container.get("volumeMounts") or ()
        if mount["mountPath"] == "/cloudsql"
    }
    found = []
    for volume in template.get("volumes") or ():
        if volume["name"] not in mounted or not volume.get("cloudSqlInstance"):
            continue
        for connection_name in map(ConnectionName.parse, volume["cloudSqlInstance"]["instances"]):
            instance = connection_name.instance
            permission = "cloudsql.instances.connect"
            resource = iam.sql_instance(project.id, instance)
            refusal = ""
            if not _reaches(project, template, instance):
                refusal = (
                    "Cloud SQL connection failed: dial tcp: i/o timeout (the instance "
                    f"{instance} has a private address only, in a network that this service does "
                    "not send into: template.vpcAccess)"
                )
            elif not project.policy.allowed(email, permission, resource):
                refusal = (
                    "Cloud SQL connection failed: boss::NOT_AUTHORIZED: Not authorized to "
                    f"access resource. Possibly missing permission {permission} on resource "
                    f"instances/{instance} (roles/cloudsql.client for {email})"
                )
            found.append((refusal, connection_name))
    return found


def _reaches(project: Project, template: Inputs, instance: str) -> bool:
    """Returns whether the connector reaches an instance; it prefers the public address."""
    live = project.read(INSTANCE, instance)
    settings = live.inputs.get("settings") or {} if live else {}
    configuration = settings.get("ipConfiguration") or {}
    if configuration.get("ipv4Enabled") is not False:
        return True
    private = last(configuration.get("privateNetwork") or "")
    return private in {last(network) for network, _ in ways({"template": template})}


def mount_sockets(
    project: Project, template: Inputs, container: Inputs, email: str, *, root: Path
) -> None:
    """Creates the connector's socket for each instance that the account may connect to."""
    root.mkdir(exist_ok=True, mode=0o700)
    for stale in root.iterdir():
        (stale / ".s.PGSQL.5432").unlink(missing_ok=True)
    for refusal, connection_name in _connections(project, template, container, email):
        if refusal:
            project.say(f"error    {refusal}")
            continue
        link = root / str(connection_name) / ".s.PGSQL.5432"
        if len(str(link).encode()) > 103:
            raise Unsupported(f"{link} is too long for the path of a Unix socket.")
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(instance_of(project, connection_name.instance).socket())
