"""`make doctor` end to end, against stand-ins for Google, Docker, Pulumi and gcloud."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from operations.doctor import __main__ as doctor
from operations.doctor import google as google_client
from operations.doctor.findings import Finding, Verdict
from tests.operations import google_apis
from tests.operations.google_apis import (
    ACCOUNT,
    NO_QUOTA_PROJECT,
    NOT_JSON,
    PROJECT,
    REGION,
    SLOW,
    TOKEN,
    Google,
    Reply,
    denied,
    disabled,
    limit,
    policy,
    refusal,
)
from tests.page_commands import stand_in

FIX, WARNING, UNSEEN = Verdict.FIX, Verdict.WARNING, Verdict.NOT_CHECKED
PASSWORD = "canary-of-the-password"
KEY = f"projects/keys-of-all/locations/{REGION}/keyRings/ring/cryptoKeys/mlflow"


@dataclass
class Computer:
    """The doctor's surroundings: a folder of stacks, programs on PATH, Google."""

    folder: Path
    programs: Path
    google: Google
    docker: Google
    environment: pytest.MonkeyPatch

    def settings(self, **config: Any) -> None:
        keys = {key if ":" in key else f"mlflow-gcp:{key}": value for key, value in config.items()}
        content = {"config": {"gcp:project": PROJECT, **keys}}
        (self.folder / "Pulumi.dev.yaml").write_text(yaml.safe_dump(content))

    def pulumi(
        self,
        *,
        version: str = "v3.300.0",
        user: str = "ada",
        selected: str = "dev",
        state: str | None = '{"deployment": {}}',
    ) -> None:
        """`state` is the exported state; None if the stack doesn't exist."""
        (self.folder / "state.json").write_text(state or "")
        no_stack = "echo \"error: no stack named 'dev' found\" >&2; exit 255"
        logged_out = "echo 'error: PULUMI_ACCESS_TOKEN must be set for login' >&2; exit 255"
        stand_in(
            self.programs,
            "pulumi",
            f"""#!/bin/sh
case "$*" in
  "version --non-interactive") echo {version};;
  "whoami --non-interactive") {f"echo {user}" if user else logged_out};;
  "stack --show-name --non-interactive") {f"echo {selected}" if selected else "exit 255"};;
  "stack export --stack dev --non-interactive")
    {no_stack if state is None else f"cat '{self.folder}/state.json'"};;
  *) echo "unexpected: $*" >&2; exit 2;;
esac
""",
        )

    def gcloud(self, account: str) -> None:
        stand_in(
            self.programs,
            "gcloud",
            f"""#!/bin/sh
[ "$*" = "auth list --filter=status:ACTIVE --format=value(account)" ] || exit 2
echo {account}
""",
        )

    def python(self, version: str) -> None:
        """Write a Python that can create environments."""
        stand_in(
            self.programs,
            "python3",
            f"""#!/bin/sh
case "$1 $2" in
  "-c import ensurepip, venv; "*) echo {version};;
  *) exit 2;;
esac
""",
        )

    def without(self, program: str) -> None:
        (self.programs / program).unlink()


@cache
def _declared(settings: Any) -> Any:
    """Cache the declared resources: each run takes some tenths of a second."""
    return _really_declared(settings)


_really_declared = doctor.resources


@pytest.fixture(scope="session")
def key_of_google() -> Callable[[str], str]:
    """Returns a service account's key, which contains the address of the token endpoint."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    return lambda token_uri: json.dumps(
        {
            "type": "service_account",
            "client_email": ACCOUNT,
            "private_key": pem,
            "token_uri": token_uri,
            "project_id": PROJECT,
        }
    )


@pytest.fixture
def serving() -> Iterator[Callable[[Google], str]]:
    servers: list[ThreadingHTTPServer] = []

    def start(google: Google) -> str:
        server = google_apis.serve(google)
        servers.append(server)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return f"127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def computer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key_of_google: Callable[[str], str],
    serving: Callable[[Google], str],
) -> Computer:
    """A computer without problems, isolated from this machine's login, Docker and Pulumi."""
    programs = tmp_path / "bin"
    programs.mkdir()
    google = Google()
    version = {"Os": "linux", "Arch": "amd64"}
    docker = Google(replies={("version", ""): (200, version)}, guarded=False)
    at = serving(google)
    key = tmp_path / "key.json"
    key.write_text(key_of_google(f"http://{at}/token"))
    for name in (*google_client.OTHER_LOGINS, "PULUMI_PYTHON_CMD", "DOCKER_TLS_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_HOST", f"tcp://{serving(docker)}")
    monkeypatch.setattr(google_client, "ADDRESS", f"http://{at}/{{api}}")
    monkeypatch.setattr(doctor, "resources", _declared)
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    found = Computer(
        folder=tmp_path, programs=programs, google=google, docker=docker, environment=monkeypatch
    )
    found.settings()
    found.pulumi()
    found.gcloud("ada@example.com")
    found.python("3.12")
    return found


def look(stack: str | None = "dev") -> list[Finding]:
    return doctor.examine(stack, folder=doctor.ROOT)


def troubles(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict is not Verdict.OK]


def only(findings: list[Finding], what: str) -> Finding:
    [found] = [finding for finding in findings if finding.what == what]
    return found


def test_nothing_is_found_on_a_ready_computer(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.main(["--stack", "dev"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert {line.split()[0] for line in lines[:-2]} == {"ok"}
    assert lines[-1] == "Nothing found that would stop `pulumi up`."
    assert TOKEN not in said.out + said.err
    subjects = {line.split("  ")[-2].strip() for line in lines[:-2]}
    columns = {len(re.match(r"ok +\w+(?: \w+)* +", line)[0]) for line in lines[:-2] if line}  # type: ignore[index]
    assert len(columns) == 1, subjects


def test_the_doctor_writes_no_files(computer: Computer) -> None:
    look()
    assert computer.google.asked
    for asked in computer.google.asked:
        reads = asked.method == "GET" or asked.path.endswith(":testIamPermissions")
        assert reads or asked.api == "token", asked


# Google's replies that differ, and the finding that results.
API = "googleapis.com"
QUOTAS = f"v1/projects/{PROJECT}/locations/global/services/run.googleapis.com/quotaInfos"
FORBIDS = {"values": {"allowedValues": ["is:C03g5e3bc"]}}
TROUBLES: list[tuple[str, dict[tuple[str, str], Reply], Verdict, str, str, str]] = [
    (
        "a project that is missing or someone else's",
        {("cloudresourcemanager", "v3"): denied("resourcemanager.projects.get")},
        FIX, "project", "my-project does not exist, or the logged-in user may not see it",
        "pulumi config set gcp:project",
    ),
    (
        "a project that is being deleted",
        {("cloudresourcemanager", "v3/projects/my-project"): (200, {"state": "DELETE_REQUESTED"})},
        FIX, "project", "my-project is DELETE_REQUESTED", "gcloud projects undelete my-project",
    ),
    (
        "a token that Google does not take",
        {("cloudresourcemanager", "v3"): refusal(401, "Invalid Credentials")},
        FIX, "project", "Google does not accept the login",
        "gcloud auth application-default login",
    ),
    (
        "nobody pays",
        {("cloudbilling", "v1"): (200, {"billingEnabled": False})},
        FIX, "billing", "no open billing account pays", "gcloud billing projects link my-project",
    ),
    (
        "billing information that the user may not read",
        {("cloudbilling", "v1"): denied("resourcemanager.projects.get")},
        UNSEEN, "billing", "not allowed to read it", "https://console.cloud.google.com/billing",
    ),
    (
        "too many requests",
        {("serviceusage", "v1"): refusal(429, "Quota exceeded")},
        UNSEEN, "APIs", "refuses more requests; try again", "",
    ),
    (
        "a proxy's page as the response",
        {("serviceusage", "v1"): NOT_JSON},
        UNSEEN, "APIs", "did not respond with JSON", "",
    ),
    (
        "permissions that Google does not know",
        {("cloudresourcemanager", "v3/projects/my-project:test"): refusal(400, "x is not valid")},
        UNSEEN, "permissions", "rejected the request: x is not valid", "",
    ),
    (
        "an organisation that forbids external members",
        {("orgpolicy", f"v2/projects/{PROJECT}/policies/iam.allowed"): policy(FORBIDS)},
        FIX, "policies", "iam.allowedPolicyMemberDomains forbids the grant to allUsers",
        "pulumi config set publicThrough invokerIamDisabled",
    ),
    (
        "an organisation that forbids external members, by the newer constraint",
        {
            ("orgpolicy", f"v2/projects/{PROJECT}/policies/iam.managed"): policy(
                {"enforce": True, "parameters": {"allowedPrincipalSets": ["//org"]}}
            )
        },
        FIX, "policies", "iam.managed.allowedPolicyMembers forbids the grant to allUsers",
        "pulumi config set publicThrough invokerIamDisabled",
    ),
    (
        "an organisation that forbids public databases",
        {("orgpolicy", f"v2/projects/{PROJECT}/policies/sql"): policy({"enforce": True})},
        FIX, "policies", "sql.restrictPublicIp forbids databases with a public address",
        "pulumi config set network private",
    ),
    (
        "policies that the user may not read",
        {("orgpolicy", f"v2/projects/{PROJECT}/policies/sql"): denied("orgpolicy.policy.get")},
        UNSEEN, "policies", "sql.restrictPublicIp: not allowed to read it: Permission", "",
    ),
    (
        "policies whose API is off",
        {("orgpolicy", ""): disabled(f"orgpolicy.{API}")},
        UNSEEN, "policies", "the API orgpolicy.googleapis.com is off",
        "gcloud services enable orgpolicy.googleapis.com",
    ),
    (
        "a quota of 1 CPU",
        {("cloudquotas", f"{QUOTAS}/Cpu"): limit(1000)},
        FIX, "quota", "maxInstances 2 with 1 CPU each is more than Cloud Run allows in "
        "us-central1: CpuAllocPerProjectRegion is 1000",
        "pulumi config set maxInstances 1, or ask for more: https://console.cloud.google.com",
    ),
    (
        "a quota of half an instance's memory",
        {("cloudquotas", f"{QUOTAS}/Mem"): limit(2**29)},
        FIX, "quota", "maxInstances 2 with 1Gi each", "ask for more",
    ),
    (
        "someone else's service of that name",
        {("run", "v2"): (200, {"name": "…"})},
        FIX, "names", "taken, and not by this stack: projects/my-project/locations/us-central1/"
        "services/mlflow", "pulumi config set name mlflow-2",
    ),
    (
        "services that the user may not read",
        {("run", "v2"): denied("run.services.get")},
        UNSEEN, "names", "Cloud Run services: not allowed to read it", "",
    ),
    (
        "a new project",
        {("run", "v2"): disabled(f"run.{API}"), ("iam", ""): disabled(f"iam.{API}")},
        UNSEEN, "names", "service accounts, Cloud Run services: their APIs are still off",
        "gcloud services enable iam.googleapis.com run.googleapis.com",
    ),
    (
        "a region that the project may not use",
        {("run", "v1"): (200, {"locations": [{"locationId": "us-east1"}]})},
        FIX, "region", "Cloud Run is not offered to the project in us-central1",
        "pulumi config set gcp:region",
    ),
    (
        "a machine type that the region does not have",
        {("sqladmin", "v1"): (200, {"items": [{"tier": "db-f1-micro", "region": ["us-east1"]}]})},
        FIX, "region", "Cloud SQL does not offer db-f1-micro in us-central1",
        "pulumi config set databaseTier",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("replies", "verdict", "what", "found", "how"),
    [case[1:] for case in TROUBLES],
    ids=[case[0] for case in TROUBLES],
)
def test_each_problem_at_google_is_the_only_finding(
    computer: Computer,
    replies: dict[tuple[str, str], Reply],
    verdict: Verdict,
    what: str,
    found: str,
    how: str,
) -> None:
    computer.google.replies = replies
    findings = troubles(look())
    # The other checks need the project.
    if what == "project":
        assert findings.pop().found.endswith("region: that requires the project")
    [finding] = findings
    assert (finding.verdict, finding.what) == (verdict, what)
    assert found in finding.found
    assert how in finding.how
    assert bool(how) is bool(finding.how)


def test_missing_permissions_are_listed_with_their_roles(computer: Computer) -> None:
    everything = {each.values["permissions"][0] for each in ()} | {
        "resourcemanager.projects.setIamPolicy",
        "secretmanager.secrets.create",
        "secretmanager.secrets.setIamPolicy",
    }
    computer.google.lacking = frozenset(everything)
    found = troubles(look())
    assert [(each.what, each.found) for each in found] == [
        ("permissions", "you lack: resourcemanager.projects.setIamPolicy"),
        (
            "permissions",
            "you lack: secretmanager.secrets.create, secretmanager.secrets.setIamPolicy",
        ),
    ]
    assert found[0].how == (
        "have an owner run: gcloud projects add-iam-policy-binding my-project --member "
        f"serviceAccount:{ACCOUNT} --role roles/resourcemanager.projectIamAdmin --condition None"
    )
    assert found[1].how.endswith("--role roles/secretmanager.admin --condition None")


def test_reading_a_pool_requires_a_permission_of_its_own(computer: Computer) -> None:
    computer.settings(githubRepository="my-org/mlflow-gcp", githubRepositoryId=74)
    computer.google.lacking = frozenset({"iam.workloadIdentityPools.getAttestationRules"})
    [found] = troubles(look())
    assert found.found == "you lack: iam.workloadIdentityPools.getAttestationRules"
    assert "--role roles/iam.workloadIdentityPoolAdmin" in found.how


def test_a_disabled_api_matters_only_without_permission_to_enable_it(computer: Computer) -> None:
    computer.google.off = frozenset({"run.googleapis.com", "sqladmin.googleapis.com"})
    findings = look()
    assert troubles(findings) == []
    assert only(findings, "APIs").found == "`pulumi up` switches on run, sqladmin"
    computer.google.lacking = frozenset({"serviceusage.services.enable"})
    [finding] = troubles(look())
    assert (finding.verdict, finding.what) == (FIX, "APIs")
    assert "gcloud services enable run.googleapis.com sqladmin.googleapis.com" in finding.how


def test_calls_name_a_quota_project_only_where_google_requires_one(computer: Computer) -> None:
    computer.google.counted = {"orgpolicy": NO_QUOTA_PROJECT, "compute": disabled("compute")}
    assert troubles(look()) == []
    counted = {each.api for each in computer.google.asked if each.quota_project}
    assert counted == {"orgpolicy"}


def test_resources_of_the_stack_itself_are_not_conflicts(computer: Computer) -> None:
    service = "mlflow-gcp:infra:Service$gcp:cloudrunv2/service:Service::server"
    urn = f"urn:pulumi:dev::mlflow-gcp::{service}"
    computer.google.replies = {("run", "v2"): (200, {"name": "…"})}
    computer.google.lacking = frozenset({"run.services.create"})
    computer.pulumi(state=json.dumps({"deployment": {"resources": [{"urn": urn}]}}))
    assert troubles(look()) == []
    # Without the state, the doctor can't know.
    computer.pulumi(state="not JSON")
    state, *_, names = troubles(look())
    assert (state.verdict, state.what) == (UNSEEN, "state")
    assert (names.verdict, names.what) == (UNSEEN, "names")
    assert names.found.startswith("Cloud Run services with its names exist")


LOST = "mlflow-1a2b3c"
OTHERS = [{"name": name} for name in ("mlflow-prod", "mlflow-team-1a2b3c", "mlflow-1a2b3c4")]


def state_with(*, instance: bool, suffix: str) -> str:
    """Returns an exported state with the suffix of the instance's name, and maybe the instance."""
    database = "urn:pulumi:dev::mlflow-gcp::mlflow-gcp:infra:Database"
    made = [
        {
            "urn": f"{database}$random:index/randomId:RandomId::instance-suffix",
            "parent": f"{database}::database",
            "outputs": {"hex": suffix},
        }
    ]
    if instance:
        urn = f"{database}$gcp:sql/databaseInstance:DatabaseInstance::instance"
        made.append({"urn": urn, "outputs": {"name": f"mlflow-{suffix}"}})
    return json.dumps({"deployment": {"resources": made}})


@pytest.mark.parametrize(
    ("state", "verdict", "how"),
    [
        (state_with(instance=False, suffix="1a2b3c"), FIX, "take it over: pulumi import gcp:sql/"),
        (state_with(instance=True, suffix="ffffff"), WARNING, "if nobody needs it: gcloud sql"),
        ("{}", WARNING, "if nobody needs it: gcloud sql instances patch mlflow-1a2b3c"),
        ("not JSON", UNSEEN, ""),
    ],
)
def test_an_instance_that_is_not_in_the_state_is_found(
    computer: Computer, state: str, verdict: Verdict, how: str
) -> None:
    computer.google.replies = {
        ("sqladmin", f"v1/projects/{PROJECT}/instances"): (
            200,
            {"items": [*OTHERS, {"name": LOST}]},
        )
    }
    computer.pulumi(state=state)
    found = only(look(), "instances")
    assert (found.verdict, found.found.split()[0].rstrip(":")) == (verdict, LOST)
    assert found.how.startswith(how)
    computer.pulumi(state=state_with(instance=True, suffix="1a2b3c"))
    assert only(look(), "instances").verdict is Verdict.OK


def test_a_stack_that_does_not_exist_yet(computer: Computer) -> None:
    computer.pulumi(state=None)
    [finding] = troubles(look())
    assert (finding.verdict, finding.how) == (WARNING, "pulumi stack init dev")


# ---- existing resources ----


def test_permissions_on_an_existing_key_budget_and_bucket(computer: Computer) -> None:
    computer.settings(
        kmsKey=KEY,
        existingBucket="my-artifacts",
        existingDatabaseInstance=f"{PROJECT}:{REGION}:shared",
        alertEmail="ada@example.com",
        monthlyBudget=50,
        billingAccount="012345-6789AB-CDEF01",
    )
    assert troubles(look()) == []
    theirs = {
        "cloudkms.cryptoKeys.setIamPolicy": f"gcloud kms keys add-iam-policy-binding {KEY}",
        "billing.budgets.create": "gcloud billing accounts add-iam-policy-binding 012345-6789AB",
        "storage.buckets.setIamPolicy": "add-iam-policy-binding gs://my-artifacts",
    }
    computer.google.lacking = frozenset(theirs)
    found = troubles(look())
    assert {each.verdict for each in found} == {FIX}
    for permission, how in theirs.items():
        [finding] = [each for each in found if permission in each.found]
        assert how in finding.how
        assert f"--member serviceAccount:{ACCOUNT}" in finding.how


@pytest.mark.parametrize(
    ("reply", "found", "how"),
    [
        (refusal(404, "no"), "does not exist", "gcloud sql instances list"),
        (
            (200, {"connectionName": f"{PROJECT}:{REGION}:shared", "databaseVersion": "MYSQL_8_4"}),
            "is MYSQL_8_4; wanted PostgreSQL",
            "pulumi config",
        ),
        (
            (200, {"connectionName": f"{PROJECT}:us-east1:shared"}),
            f"the instance is {PROJECT}:us-east1:shared",
            f"pulumi config set existingDatabaseInstance {PROJECT}:us-east1:shared",
        ),
        (
            (
                200,
                {
                    "connectionName": f"{PROJECT}:{REGION}:shared",
                    "databaseVersion": "POSTGRES_17",
                    "state": "SUSPENDED",
                },
            ),
            "is SUSPENDED",
            "start it",
        ),
    ],
)
def test_an_existing_instance_is_checked(
    computer: Computer, reply: Reply, found: str, how: str
) -> None:
    computer.settings(existingDatabaseInstance=f"{PROJECT}:{REGION}:shared")
    path = f"v1/projects/{PROJECT}/instances/shared"
    computer.google.replies = {
        ("sqladmin", f"{path}/"): refusal(404, "no such database"),
        ("sqladmin", path): reply,
    }
    [finding] = troubles(look())
    assert (finding.verdict, finding.what) == (FIX, "existingDatabaseInstance")
    assert found in finding.found
    assert how in finding.how


def test_a_network_needs_quota(computer: Computer) -> None:
    computer.settings(network="private")
    assert troubles(look()) == []
    full = {"quotas": [{"metric": "NETWORKS", "limit": 5, "usage": 5}]}
    computer.google.replies = {("compute", f"compute/v1/projects/{PROJECT}"): (200, full)}
    quota, *names = troubles(look())
    assert (quota.verdict, quota.what) == (FIX, "quota")
    assert quota.found == "1 more of Compute Engine's NETWORKS are needed, and 5 of 5 are used"
    # The stand-in gave the check of names the same reply.
    assert {each.what for each in names} == {"names"}


# ---- this computer ----


def _no_pulumi(computer: Computer) -> None:
    computer.without("pulumi")


def _old_pulumi(computer: Computer) -> None:
    computer.pulumi(version="v3.1.0")


def _logged_out_of_pulumi(computer: Computer) -> None:
    computer.pulumi(user="")


def _no_docker(computer: Computer) -> None:
    computer.environment.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")


def _docker_in_containerd(computer: Computer) -> None:
    status = [["driver-type", "io.containerd.snapshotter.v1"]]
    computer.docker.replies[("info", "")] = (200, {"Driver": "overlayfs", "DriverStatus": status})


def _docker_of_windows(computer: Computer) -> None:
    computer.docker.replies[("version", "")] = (200, {"Os": "windows", "Arch": "amd64"})


def _docker_of_arm(computer: Computer) -> None:
    computer.docker.replies[("version", "")] = (200, {"Os": "linux", "Arch": "arm64"})
    _buildx(computer, "linux/arm64, linux/arm/v7")


def _buildx(computer: Computer, platforms: str) -> None:
    script = f'#!/bin/sh\n[ "$*" = "buildx inspect" ] && echo "Platforms: {platforms}"\n'
    stand_in(computer.programs, "docker", script)


def _old_python(computer: Computer) -> None:
    computer.python("3.9")


def _python_without_venv(computer: Computer) -> None:
    stand_in(computer.programs, "python3", "#!/bin/sh\nexit 1\n")


def _no_gcloud_for_cloud_build(computer: Computer) -> None:
    computer.settings(builder="cloud-build")
    computer.without("gcloud")
    computer.environment.setenv("PATH", str(computer.programs))


def _logged_out_of_gcloud(computer: Computer) -> None:
    computer.settings(builder="cloud-build")
    computer.gcloud("")


LOCAL: list[tuple[Callable[[Computer], None], Verdict, str, str, str]] = [
    (
        _no_pulumi,
        FIX,
        "pulumi",
        "no working Pulumi on the PATH",
        "https://www.pulumi.com/docs/install/",
    ),
    (_old_pulumi, WARNING, "pulumi", "v3.1.0; the oldest version that this program", "update it"),
    (_logged_out_of_pulumi, FIX, "pulumi login", "nobody is logged in", "pulumi login"),
    (_no_docker, FIX, "docker", "no daemon answers at unix:///nowhere", "builder cloud-build"),
    (_docker_in_containerd, WARNING, "docker", "containerd's store", "containerd-snapshotter"),
    (_docker_of_windows, FIX, "docker", "makes windows images", "Linux containers"),
    (_docker_of_arm, FIX, "docker", "linux/arm64 and builds for", "tonistiigi/binfmt"),
    (_old_python, FIX, "python", "is 3.9; wanted 3.11 to 3.14", "PULUMI_PYTHON_CMD"),
    (_python_without_venv, FIX, "python", "does not run, or can't make", "python3-venv"),
    (_no_gcloud_for_cloud_build, FIX, "gcloud", "not installed", "cloud.google.com/sdk"),
    (_logged_out_of_gcloud, FIX, "gcloud", "nobody is logged in", "gcloud auth login"),
]


@pytest.mark.parametrize(
    ("happened", "verdict", "what", "found", "how"), LOCAL, ids=[case[0].__name__ for case in LOCAL]
)
def test_each_problem_on_this_computer_is_reported(
    computer: Computer,
    happened: Callable[[Computer], None],
    verdict: Verdict,
    what: str,
    found: str,
    how: str,
) -> None:
    happened(computer)
    findings = troubles(look())
    # Checks that need Pulumi are skipped, and nothing else is wrong.
    assert {each.what for each in findings if each.verdict is UNSEEN} <= {"pulumi login", "state"}
    [finding] = [each for each in findings if each.verdict is not UNSEEN]
    assert (finding.verdict, finding.what) == (verdict, what)
    assert found in finding.found
    assert how in finding.how


def test_a_daemon_that_also_builds_for_amd64_is_enough(computer: Computer) -> None:
    _docker_of_arm(computer)
    _buildx(computer, "linux/arm64*, linux/amd64, linux/386")
    assert troubles(look()) == []
    computer.without("docker")
    computer.environment.setenv("PATH", f"{computer.programs}")
    _python_here(computer)
    [finding] = troubles(look())
    assert (finding.verdict, finding.what) == (UNSEEN, "docker")


def _python_here(computer: Computer) -> None:
    """Link the programs that the stand-ins themselves need."""
    for program in ("cat", "sh"):
        (computer.programs / program).symlink_to(f"/bin/{program}")


@pytest.mark.parametrize(
    "settings",
    [{"builder": "cloud-build"}, {"image": "docker.io/my/server:1.2"}],
)
def test_other_builders_need_no_docker(computer: Computer, settings: Mapping[str, str]) -> None:
    _no_docker(computer)
    computer.settings(**settings)
    findings = look()
    assert troubles(findings) == []
    assert "not needed" in only(findings, "docker").found


# ---- settings and stacks ----


def test_all_invalid_settings_are_reported_and_the_rest_is_checked(
    computer: Computer,
) -> None:
    computer.settings(maxInstances=900, access="everyone", trackingPassword=PASSWORD)
    findings = look()
    settings = [each for each in findings if each.what == "settings"]
    assert [each.found.split(":")[1] for each in settings] == [
        "access",
        "trackingPassword",
        "databaseConnections",
    ]
    assert {each.verdict for each in settings} == {FIX}
    assert all(each.how.startswith("pulumi config set") for each in settings)
    assert PASSWORD not in str(findings)
    assert only(findings, "billing").verdict is Verdict.OK
    assert "requires valid settings" in only(findings, "Google Cloud").found


def test_an_encrypted_password_is_accepted(computer: Computer) -> None:
    computer.settings(trackingPassword={"secure": "v1:abc"})
    assert troubles(look()) == []


@pytest.mark.parametrize(
    ("named", "selected", "stack"),
    [
        ("dev", "", "dev"),
        (None, "dev", "dev (selected in Pulumi)"),
        (None, "", "dev (none is selected in Pulumi, so the first)"),
    ],
)
def test_the_stack_is_the_named_or_the_selected_or_the_first(
    computer: Computer, named: str | None, selected: str, stack: str
) -> None:
    computer.pulumi(selected=selected)
    findings = look(named)
    assert troubles(findings) == []
    assert only(findings, "stack").found == stack


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("prod", "prod has no Pulumi.prod.yaml; there is one for dev"),
        ("de v", "de v isn't a stack's name"),
    ],
)
def test_a_missing_stack_is_reported(computer: Computer, named: str, found: str) -> None:
    stack, rest = troubles(look(named))
    assert stack.found.startswith(found)
    assert "pulumi stack init" in stack.how
    assert rest.found.endswith("that requires gcp:project")


# ---- the login ----


def _no_login(computer: Computer) -> None:
    computer.environment.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    computer.environment.setenv("CLOUDSDK_CONFIG", str(computer.folder / "none"))
    computer.environment.setenv("NO_GCE_CHECK", "true")


def _broken_key(computer: Computer) -> None:
    (computer.folder / "key.json").write_text(json.dumps({"private_key": TOKEN}))


def _expired(computer: Computer) -> None:
    computer.google.replies = {("token", ""): (400, {"error": "invalid_grant"})}


def _offline(computer: Computer) -> None:
    key = json.loads((computer.folder / "key.json").read_text())
    (computer.folder / "key.json").write_text(
        json.dumps({**key, "token_uri": "http://127.0.0.1:1"})
    )


def _otherwise(computer: Computer) -> None:
    computer.environment.setenv("GOOGLE_CREDENTIALS", TOKEN)


@pytest.mark.parametrize(
    ("happened", "verdict", "found", "how"),
    [
        (_no_login, FIX, "nobody is logged in", "gcloud auth application-default login"),
        (_broken_key, FIX, "isn't a key or login of Google's", "gcloud auth application-default"),
        (_expired, FIX, "no longer accepts the login", "gcloud auth application-default login"),
        (_offline, UNSEEN, "could not be reached", "HTTPS_PROXY"),
        (_otherwise, UNSEEN, "by GOOGLE_CREDENTIALS, which isn't checked", "unset it"),
    ],
)
def test_without_a_login_the_rest_is_still_checked(
    computer: Computer,
    capsys: pytest.CaptureFixture[str],
    happened: Callable[[Computer], None],
    verdict: Verdict,
    found: str,
    how: str,
) -> None:
    happened(computer)
    findings = look()
    login, rest = troubles(findings)
    assert (login.verdict, login.what) == (verdict, "login")
    assert found in login.found
    assert how in login.how
    assert rest.verdict is UNSEEN
    assert rest.found.startswith("project, billing, APIs, permissions, policies, quota, names")
    assert {"stack", "settings", "python", "pulumi", "docker", "gcloud"} <= {
        each.what for each in findings if each.verdict is Verdict.OK
    }
    assert TOKEN not in str(findings)
    assert capsys.readouterr() == ("", "")


def test_an_api_that_does_not_respond_is_skipped(computer: Computer) -> None:
    # Enough time for the other APIs, even on a busy computer.
    computer.environment.setattr(google_client, "READ_SECONDS", 2)
    computer.google.replies = {("orgpolicy", ""): SLOW, ("cloudbilling", ""): SLOW}
    billing, policies = troubles(look())
    computer.google.over.set()
    assert billing.found == "cloudbilling.googleapis.com did not answer in time"
    assert policies.found.endswith("orgpolicy.googleapis.com did not answer in time")


def test_only_findings_to_fix_end_with_exit_code_1(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    computer.pulumi(version="v3.1.0")
    assert doctor.main([]) == 0
    assert capsys.readouterr().out.endswith(
        "1 to note: nothing found that would stop `pulumi up`.\n"
    )
    computer.google.replies = {("cloudbilling", "v1"): (200, {})}
    assert doctor.main([]) == 1
    said = capsys.readouterr().out
    assert said.endswith("1 to fix, 1 to note: `pulumi up` would fail.\n")
    assert "\x1b" not in said
