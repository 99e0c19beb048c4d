"""A stack's life: preview, up, up again, destroy; two stacks; drift; a killed engine."""

from __future__ import annotations

import base64
import time

import pytest
import yaml

from fake_google.network import release_addresses
from fake_google.sql.instances import grow_disk
from tests.engine.deployment import (
    BUCKET,
    INSTANCE,
    ROOT,
    SAVE_AT_THE_END,
    SERVICE,
    VERSION,
    Deployment,
    kinds,
)

MEMBER = "gcp:secretmanager/secretIamMember:SecretIamMember"
API = "gcp:projects/service:Service"
ACCOUNT = "gcp:serviceaccount/account:Account"
OF_THE_SIGNER = (
    ACCOUNT,
    "gcp:serviceaccount/iAMMember:IAMMember",
    "gcp:storage/bucketIAMMember:BucketIAMMember",
)


def test_preview_creates_nothing(fresh: Deployment) -> None:
    fresh.init()
    ahead = fresh.preview()
    assert not fresh.cloud.project.live
    assert f"create {SERVICE} server" in ahead.touched
    assert {step.partition(" ")[0] for step in ahead.touched} == {"create"}
    # And `up` does what preview announced.
    assert fresh.up().touched == ahead.touched


def test_a_second_up_changes_nothing(deployed: Deployment) -> None:
    before = dict(deployed.cloud.project.live)
    assert deployed.up().touched == set()
    assert deployed.preview().touched == set()
    assert deployed.refresh().touched == set()
    assert deployed.cloud.project.live == before
    # The registry token differed each time, so no resource depends on it.
    assert len(set(deployed.cloud.given)) >= 2


def test_a_deleted_signer_is_recreated_with_its_permissions(deployed: Deployment) -> None:
    """After a theft it is deleted by hand, which invalidates all signed URLs."""
    cloud = deployed.cloud
    everything = cloud.counts()
    signer = f"mlflow-signer@{cloud.project.id}.iam.gserviceaccount.com"
    signature = cloud.project.keys.sign(signer, b"signed before")
    cloud.delete(ACCOUNT, f"projects/{cloud.project.id}/serviceAccounts/{signer}", {})
    assert kinds(deployed.refresh().touched) == {token: {"delete"} for token in OF_THE_SIGNER}
    assert kinds(deployed.up().touched) == {token: {"create"} for token in OF_THE_SIGNER}
    assert cloud.counts() == everything
    assert not cloud.project.keys.verify(signer, b"signed before", signature)


@pytest.mark.parametrize("builder", ["docker", "cloud-build"])
def test_another_image_source_touches_image_and_service_only(
    fresh: Deployment, builder: str
) -> None:
    fresh.init(builder=builder)
    fresh.up()
    source = fresh.project / "image" / "tracking_server" / "gate" / "gate.py"
    source.write_text(source.read_text() + "\n# changed\n")
    built = {
        "docker": {"docker:index/image:Image": {"update"}},
        "cloud-build": {
            "command:local:Command": {"create-replacement", "replace", "delete-replaced"}
        },
    }[builder]
    up = fresh.up()
    assert kinds(up.touched) == {**built, SERVICE: {"update"}}
    assert fresh.output("image") == fresh.cloud.one(SERVICE)["template"]["containers"][0]["image"]
    assert fresh.up().touched == set()


def test_a_rotated_secret_touches_its_version_and_the_service_only(deployed: Deployment) -> None:
    old = deployed.output("tracking_password")
    for password in ("a first long phrase", "a second long phrase"):
        deployed.pulumi(
            *("config", "set", "--secret", "trackingPassword", password, "--stack", "prod")
        )
        up = deployed.up()
        assert f"update {SERVICE} server" in up.touched
        assert deployed.output("tracking_password") == password
    assert kinds(up.touched) == {
        VERSION: {"create-replacement", "replace", "delete-replaced"},
        SERVICE: {"update"},
    }
    versions = deployed.cloud.project.secrets.versions("mlflow_tracking_password")
    assert versions is not None
    # The revision to roll back to still reads its own version.
    assert [base64.b64decode(versions[n]["data"]).decode() for n in "123"] == [
        old, "a first long phrase", "a second long phrase"
    ]  # fmt: skip
    assert {version["state"] for version in versions.values()} == {"ENABLED"}
    envs = deployed.cloud.one(SERVICE)["template"]["containers"][0]["envs"]
    assert {
        "name": "TRACKING_PASSWORD_SECRET",
        "value": "mlflow_tracking_password/versions/3",
    } in envs


def test_a_grown_disk_blocks_no_change(deployed: Deployment) -> None:
    """Cloud SQL enlarges the disk, and Pulumi's state keeps the size that was declared."""
    project = deployed.cloud.project
    [instance] = project.databases
    grow_disk(project, instance, 37)
    deployed.configure(backupRetention=14)
    assert kinds(deployed.up().touched) == {INSTANCE: {"update"}}
    assert deployed.up().touched == set()
    grow_disk(project, instance, 52)
    # An `up` without another change only notes the size.
    assert kinds(deployed.up().touched) == {INSTANCE: {"update"}}
    deployed.configure(databaseDiskGb=60)
    deployed.up()
    assert project.disks == {instance: 60}


def test_a_password_in_plain_text_is_refused(fresh: Deployment) -> None:
    fresh.init()
    # Pulumi's own CLI asks for `--secret` as well, but the file can be edited by hand.
    fresh.configure(trackingPassword="a canary in plain text")
    refused = fresh.preview(fails=True)
    assert "pulumi config set --secret trackingPassword" in refused.errors
    assert "a canary" not in refused.errors
    fresh.pulumi("config", "set", "--secret", "trackingPassword", "a canary in a secret")
    assert "a canary" not in fresh.preview().text


def test_the_production_stack_is_destroyed_once_unprotected(fresh: Deployment) -> None:
    """The stack uses a Cloud KMS key too."""
    file = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())["config"]
    fresh.init(**file, kmsKey="projects/my-keys/locations/us-central1/keyRings/r/cryptoKeys/k")
    fresh.up()
    assert fresh.up().touched == set()
    assert "cannot be deleted" in fresh.destroy(fails=True).errors
    fresh.configure(deletionProtection=False)
    fresh.up()
    # Cloud Run keeps the addresses in the subnetwork for some hours.
    assert "addresses/serverless-ipv4-" in fresh.destroy(fails=True).errors
    assert fresh.cloud.counts().keys().isdisjoint({BUCKET, INSTANCE, SERVICE})
    release_addresses(fresh.cloud.project)
    fresh.destroy()
    assert fresh.cloud.counts() == {"gcp:projects/iAMMember:IAMMember": 1}
    # It can be created again, while Google still keeps the connection to the deleted instance.
    fresh.up()


def test_wrong_settings_are_reported_without_a_traceback(fresh: Deployment) -> None:
    fresh.init(maxInstances=9, memory="tiny")
    refused = fresh.up(fails=True)
    assert "2 settings to correct, nothing was changed" in refused.errors
    assert "Traceback" not in refused.text
    assert not fresh.cloud.project.live


def test_drift_is_found_and_fixed(deployed: Deployment) -> None:
    cloud = deployed.cloud
    [live] = [live for key, live in cloud.project.live.items() if key[0] == SERVICE]
    template = live.inputs["template"]
    [container] = template["containers"]
    changed = {**container, "resources": {"limits": {"cpu": "1", "memory": "4Gi"}}}
    live.inputs = {**live.inputs, "template": {**template, "containers": [changed]}}
    live.outputs = {**live.outputs, **live.inputs}
    lost = next(key for key in cloud.project.live if key[0] == MEMBER)
    cloud.delete(*lost, olds={})
    assert {SERVICE, MEMBER} == kinds(deployed.refresh().touched).keys()
    mended = deployed.up()
    assert kinds(mended.touched) == {SERVICE: {"update"}, MEMBER: {"create"}}
    assert cloud.one(SERVICE)["template"] == template
    assert lost in cloud.project.live
    assert deployed.up().touched == set()


def test_a_disk_that_has_grown_is_not_drift(deployed: Deployment) -> None:
    [live] = [live for key, live in deployed.cloud.project.live.items() if key[0] == INSTANCE]
    live.inputs = {**live.inputs, "settings": {**live.inputs["settings"], "diskSize": 50}}
    live.outputs = {**live.outputs, **live.inputs}
    deployed.refresh()
    assert deployed.up().touched == set()


def test_a_killed_engine_is_cancelled_and_resumed(fresh: Deployment) -> None:
    fresh.init()
    for name in SAVE_AT_THE_END:
        del fresh.environment[name]
    fresh.cloud.held = INSTANCE
    with fresh.start("up", "--yes", "--skip-preview", "--stack", "prod") as process:
        assert fresh.cloud.reached.wait(60)
        _settle(fresh)
        process.kill()
    fresh.cloud.held = ""
    fresh.cloud.released.set()
    locked = fresh.up(fails=True)
    assert "pulumi cancel" in locked.errors + locked.text
    fresh.pulumi("cancel", "--yes", "--stack", "prod")
    fresh.up()
    assert len(fresh.cloud.project.databases) == 1
    assert fresh.up().touched == set()


def _settle(made: Deployment) -> None:
    """Wait until nothing writes the state any more: a file is not written in one step."""
    state = made.state / ".pulumi" / "stacks" / "mlflow-gcp" / "prod.json"
    seen = b""
    while (now := state.read_bytes()) != seen:
        seen = now
        time.sleep(1)


def test_a_protected_stack_is_not_destroyed(deployed: Deployment) -> None:
    before = set(deployed.cloud.project.live)
    refused = deployed.pulumi("destroy", "--yes", "--stack", "prod", fails=True)
    assert "cannot be deleted" in refused.text
    assert "`protect`" in refused.text
    assert set(deployed.cloud.project.live) == before
    # Google's own protection still holds when Pulumi's is removed by hand.
    deployed.pulumi("state", "unprotect", "--all", "--yes", "--stack", "prod")
    refused = deployed.destroy(fails=True)
    assert "deletion_protection=false" in refused.errors
    # The README's commands.
    deployed.configure(deletionProtection=False)
    assert (
        kinds(deployed.up().touched).items() >= {INSTANCE: {"update"}, SERVICE: {"update"}}.items()
    )
    deployed.destroy()
    assert not deployed.cloud.project.live


def test_a_bucket_with_artifacts_is_kept(fresh: Deployment) -> None:
    fresh.init(deletionProtection=False)
    fresh.up()
    bucket = fresh.output("artifact_bucket")
    file = fresh.cloud.project.store.files / "artifact"
    file.write_bytes(b"precious")
    fresh.cloud.project.store.put({"bucket": bucket, "name": "1/model"}, [file])
    # The bucket outlives both a move and the stack.
    fresh.configure(bucketLocation="EU")
    assert "force_destroy" in fresh.up(fails=True).errors
    assert "force_destroy" in fresh.destroy(fails=True).errors
    assert fresh.cloud.project.store.get(bucket, "1/model")


def test_destroying_the_dev_stack_leaves_nothing(fresh: Deployment) -> None:
    fresh.init(
        "dev",
        builder="cloud-build",
        githubRepository="my-org/mlflow-gcp",
        githubRepositoryId=74,
        githubReview=True,
    )
    fresh.up("dev")
    fresh.destroy("dev")
    assert not fresh.cloud.project.live
    assert not fresh.cloud.project.databases
    # It can be created again: identity pool and roles get new names, as deleted names stay taken.
    fresh.up("dev")


def test_two_stacks_live_side_by_side(deployed: Deployment) -> None:
    before = dict(deployed.cloud.project.live)
    deployed.init("second", name="second", deletionProtection=False)
    deployed.up("second")
    uris = {deployed.output("tracking_uri", stack) for stack in ("prod", "second")}
    assert len(uris) == 2
    assert deployed.cloud.project.live.keys() > before.keys()
    assert deployed.up().touched == deployed.up("second").touched == set()
    deployed.destroy("second")
    # The APIs that both stacks use stay enabled.
    assert "run.googleapis.com" in deployed.cloud.project.enabled
    assert {key for key in before if key[0] != API} <= deployed.cloud.project.live.keys()
    assert deployed.up().touched == set()


def test_a_second_stack_of_the_same_name_is_refused_and_changes_nothing(
    deployed: Deployment,
) -> None:
    before = {key: live for key, live in deployed.cloud.project.live.items() if key[0] != API}
    assert before
    deployed.init("second")
    refused = deployed.up("second", fails=True)
    assert "already exists" in refused.errors
    assert all(deployed.cloud.project.live[key] is live for key, live in before.items())
    assert deployed.up().touched == set()


def test_no_secret_is_left_in_plain_text(fresh: Deployment) -> None:
    """No secret is in the state, the history, the backups, the CLI's home or the output."""
    fresh.logs.unlink()
    fresh.secrets_provider = "passphrase"
    fresh.init()
    canary = "canary-of-the-tracking-password"
    printed = [fresh.preview().text, fresh.up().text]
    fresh.pulumi("config", "set", "--secret", "trackingPassword", canary)
    printed.append(fresh.pulumi("preview", "--diff", "--show-sames").text)
    printed.append(fresh.up().text)
    fresh.pulumi("config", "set", "--secret", "trackingPassword", f"{canary}-2")
    printed.append(fresh.pulumi("up", "--yes", "--diff", "--show-sames").text)
    printed += [fresh.refresh().text, fresh.pulumi("stack", "export").text]
    printed.append(fresh.pulumi("stack", "history", "--full-dates").text)
    secrets = {canary, fresh.environment["PULUMI_CONFIG_PASSPHRASE"], *fresh.cloud.given}
    assert len(secrets) >= 6
    secrets |= {base64.b64encode(secret.encode()).decode().rstrip("=")[:-1] for secret in secrets}
    kept = [
        path
        for folder in ("state", "home", "project")
        for path in (fresh.folder / folder).rglob("*")
        if path.is_file() and not path.is_symlink() and ".venv" not in path.parts
    ]
    assert {"history", "backups", "stacks", "logs"} <= {
        part for path in kept for part in path.parts
    }
    for secret in secrets:
        assert not [path for path in kept if secret.encode() in path.read_bytes()]
        assert not [text for text in printed if secret in text]
