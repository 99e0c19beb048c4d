"""Building the image: with Docker, with Cloud Build and its permissions, or not at all."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from infra.google.image import PLATFORM, content_hash
from tests.infra.declared import PROJECT, REGION, ROOT, recorded, run

COMMAND = "command:local:Command"
DIGEST = "sha256:" + "e" * 64
BUILDER = f"mlflow-build@{PROJECT}.iam.gserviceaccount.com"
SOURCE_BUCKET = f"{PROJECT}-mlflow-source-ab12cd"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    (folder / "package").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "package" / "a.py").write_text("a = 1\n")
    (folder / "package" / "b.py").write_text("b = 1\n")
    (folder / ".dockerignore").write_text("# none of these\n**/__pycache__\n\nnotes\n")
    return folder


def _write(name: str, text: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _write("package/a.py", "a = 2\n"),
        _write("package/c.py", ""),
        _write(".dockerignore", "package\n"),
        lambda folder: (folder / "package/a.py").unlink(),
        lambda folder: (folder / "package/a.py").rename(folder / "package/c.py"),
        lambda folder: (folder / "package/a.py").rename(folder / "a.py"),
        lambda folder: (folder / "package/a.py").chmod(0o755),
        lambda folder: (folder / "link").symlink_to("Dockerfile"),
    ],
)
def test_hash_changes_with(context: Path, change: Callable[[Path], object]) -> None:
    before = content_hash(context)
    change(context)
    assert content_hash(context) != before


@pytest.mark.parametrize(
    "change",
    [
        _write("package/__pycache__/a.cpython-311.pyc", "x"),
        _write("notes/todo.md", "x"),
        lambda folder: os.utime(folder / "Dockerfile", (1, 1)),
        lambda folder: (folder / "Dockerfile").chmod(0o600),
        lambda folder: (folder / "empty").mkdir(),
    ],
)
def test_hash_does_not_change_with(context: Path, change: Callable[[Path], object]) -> None:
    before = content_hash(context)
    change(context)
    assert content_hash(context) == before


@pytest.mark.parametrize(
    ("rules", "path", "ignored"),
    [
        ("", "a.py", False),
        ("a.py", "a.py", True),
        ("a.py", "package/a.py", False),
        ("# a.py", "a.py", False),
        ("*.py", "package/a.py", False),
        ("package", "package/deep/a.py", True),
        ("package/", "package/deep/a.py", True),
        ("/package", "package/a.py", True),
        ("*/a.py", "package/a.py", True),
        ("*/a.py", "package/deep/a.py", False),
        ("**/a.py", "a.py", True),
        ("**/a.py", "package/deep/a.py", True),
        ("package/**", "package/deep/a.py", True),
        ("?.py", "a.py", True),
        ("?.py", "ab.py", False),
        ("?", "ab.py", False),
        ("a+b.py", "aab.py", False),
        # Unlike in git, a file can be included although its folder is ignored.
        ("*\n!package/*.py", "package/a.py", False),
        ("*\n!package/*.py", "package/a.txt", True),
        ("*\n!package/*.py", "package/deep/a.py", True),
        ("!a.py\n*.py", "a.py", True),
    ],
)
def test_dockerignore(tmp_path: Path, rules: str, path: str, ignored: bool) -> None:
    _write(path, "x")(tmp_path / "with")
    (tmp_path / "without").mkdir()
    for folder in ("with", "without"):
        _write(".dockerignore", f"{rules}\n.dockerignore\n")(tmp_path / folder)
    same = content_hash(tmp_path / "with") == content_hash(tmp_path / "without")
    assert same is ignored


def test_the_image_is_hashed_as_docker_sees_it(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "image", tmp_path / "image")
    before = content_hash(tmp_path / "image")
    _write("tracking_server/__pycache__/gate.cpython-311.pyc", "x")(tmp_path / "image")
    _write("notes.md", "x")(tmp_path / "image")
    assert content_hash(tmp_path / "image") == before
    _write("tracking_server/new.py", "x")(tmp_path / "image")
    assert content_hash(tmp_path / "image") != before


def test_every_package_of_the_server_is_in_the_image() -> None:
    """Buildah and older versions of Docker only look into folders that a rule names."""
    modules = (ROOT / "image" / "tracking_server").rglob("*.py")
    folders = {module.parent.relative_to(ROOT / "image") for module in modules}
    assert len(folders) > 1
    rules = (ROOT / "image" / ".dockerignore").read_text().splitlines()
    assert {f"!{folder.as_posix()}/*.py" for folder in folders} <= set(rules)
    packages = tomllib.loads((ROOT / "image" / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert {".".join(folder.parts) for folder in folders} == set(packages["packages"])


def test_hash_separates_names_from_content(tmp_path: Path) -> None:
    for folder, name, content in (("one", "ab", "c"), ("two", "a", "bc")):
        _write(name, content)(tmp_path / folder)
    assert content_hash(tmp_path / "one") != content_hash(tmp_path / "two")


def test_hash_changes_with_the_target_of_a_link(context: Path) -> None:
    link = context / "link"
    link.symlink_to("package/a.py")
    (context / "package/b.py").write_text("a = 1\n")
    before = content_hash(context)
    link.unlink()
    link.symlink_to("package/b.py")
    assert content_hash(context) != before


def test_hash_is_the_same_elsewhere(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(context, tmp_path / "copy")
    here = content_hash(context)
    listed = Path.rglob

    def backwards(path: Path, pattern: str) -> list[Path]:
        return sorted(listed(path, pattern), reverse=True)

    monkeypatch.setattr(Path, "rglob", backwards)
    assert content_hash(tmp_path / "copy") == here


def test_cloud_build_runs_again_only_when_the_content_changes() -> None:
    first, second = recorded({"builder": "cloud-build"}), run({"builder": "cloud-build"})
    command, again = first.one(COMMAND), second.one(COMMAND)
    assert command.inputs == again.inputs
    assert command.inputs["triggers"] == [content_hash(ROOT / "image")]
    tag = content_hash(ROOT / "image")[:16]
    assert command.inputs["environment"] == {
        "PROJECT": PROJECT,
        "IMAGE": f"{REGION}-docker.pkg.dev/{PROJECT}/mlflow/server:src-{tag}",
        "ACCOUNT": BUILDER,
        "SOURCE_BUCKET": SOURCE_BUCKET,
    }


def test_cloud_build_runs_as_an_account_with_minimal_roles() -> None:
    program = recorded({"builder": "cloud-build"})
    granted = {
        (r.type.split("/")[0], r.inputs["role"], r.inputs.get("bucket") or r.inputs.get("project"))
        for r in program.created
        if r.inputs.get("member") == f"serviceAccount:{BUILDER}"
    }
    assert granted == {
        ("gcp:storage", "roles/storage.objectViewer", SOURCE_BUCKET),
        ("gcp:artifactregistry", "roles/artifactregistry.writer", None),
        ("gcp:projects", "roles/logging.logWriter", PROJECT),
    }
    # The role is on this repository only, and all grants come before the build.
    pushes = program.one("gcp:artifactregistry/repositoryIamMember:RepositoryIamMember")
    assert (pushes.inputs["repository"], pushes.inputs["location"]) == ("mlflow", REGION)
    before = program.before(program.one(COMMAND))
    assert {
        r.urn for r in program.created if r.inputs.get("member") == f"serviceAccount:{BUILDER}"
    } < before


def test_cloud_builds_source_is_deleted_after_a_day() -> None:
    bucket = recorded({"builder": "cloud-build"}).one("gcp:storage/bucket:Bucket", "source").inputs
    assert bucket["name"] == SOURCE_BUCKET
    assert bucket["location"] == REGION.upper()
    assert bucket["forceDestroy"] is True
    assert bucket["softDeletePolicy"] == {"retentionDurationSeconds": 0}
    assert bucket["lifecycleRules"] == [{"action": {"type": "Delete"}, "condition": {"age": 1}}]


def test_cloud_build_gets_account_platform_and_logging() -> None:
    build = yaml.safe_load((ROOT / "image" / "cloudbuild.yaml").read_text())
    [step] = build["steps"]
    assert step["args"] == ["build", "--platform", PLATFORM, "--tag", "$_IMAGE", "."]
    assert build["images"] == ["$_IMAGE"]
    assert build["serviceAccount"] == "projects/$PROJECT_ID/serviceAccounts/$_ACCOUNT"
    # Any other logging requires a bucket that the account may write to.
    assert build["options"] == {"logging": "CLOUD_LOGGING_ONLY"}


@pytest.mark.parametrize("machine", ["x86_64", "arm64", "aarch64"])
def test_docker_builds_for_cloud_run_on_any_machine(
    monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    build = run().one("docker:index/image:Image").inputs["build"]
    assert build["platform"] == PLATFORM == "linux/amd64"
    assert build["dockerfile"] == "image/Dockerfile"
    # The Dockerfile doesn't choose another platform.
    assert "--platform" not in (ROOT / "image" / "Dockerfile").read_text()


FAKE_GCLOUD = f"""#!/bin/sh
printf '%s\\n' "$*" >> "$CALLS"
case "$1" in
  builds) echo "the log of the build"; exit "${{BUILD_STATUS:-0}}" ;;
  artifacts) echo "${{5%:*}}@{DIGEST}" ;;
esac
"""


def _run_cloud_build(tmp_path: Path, status: int) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the declared command in the shell it names, with a gcloud that only records its calls."""
    command = recorded({"builder": "cloud-build"}).one(COMMAND)
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(FAKE_GCLOUD)
    gcloud.chmod(gcloud.stat().st_mode | stat.S_IXUSR)
    calls = tmp_path / "calls"
    done = subprocess.run(
        [*command.inputs["interpreter"], command.inputs["create"]],
        cwd=ROOT,
        env={
            **command.inputs["environment"],
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "CALLS": str(calls),
            "BUILD_STATUS": str(status),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done, calls.read_text()


def test_cloud_build_prints_only_the_digest(tmp_path: Path) -> None:
    done, calls = _run_cloud_build(tmp_path, 0)
    assert done.returncode == 0
    [line] = done.stdout.splitlines()
    assert line == f"{REGION}-docker.pkg.dev/{PROJECT}/mlflow/server@{DIGEST}"
    assert "the log of the build" in done.stderr
    submit, describe = calls.splitlines()
    tag = f"{REGION}-docker.pkg.dev/{PROJECT}/mlflow/server:src-{content_hash(ROOT / 'image')[:16]}"
    # No --ignore-file: gcloud would exclude all of tracking_server by .dockerignore.
    assert submit == (
        f"builds submit image --project {PROJECT} --config image/cloudbuild.yaml "
        f"--substitutions _IMAGE={tag},_ACCOUNT={BUILDER} "
        f"--gcs-source-staging-dir gs://{SOURCE_BUCKET}/source --quiet"
    )
    assert describe == (
        f"artifacts docker images describe {tag} --project {PROJECT} "
        "--format value(image_summary.fully_qualified_digest)"
    )


def test_a_failed_build_ends_the_command(tmp_path: Path) -> None:
    done, calls = _run_cloud_build(tmp_path, 1)
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(calls.splitlines()) == 1
