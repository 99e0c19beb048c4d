"""Artifacts that the server deletes stay in the bucket as noncurrent versions."""

from collections.abc import Iterator

import pytest
from tracking_server.artifacts.repository import KeylessGCSArtifactRepository

from tests.server.google import BUCKET, Google

ROOT = f"gs://{BUCKET}/deletion"


@pytest.fixture
def stored(google: Google, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Returns the names below `ROOT`, in a bucket with versioning like ours."""
    monkeypatch.setenv("GCP_PROJECT", google.environment["GCP_PROJECT"])
    google.objects.create_bucket(BUCKET, {"versioning": {"enabled": True}})
    names = ["run/model", "run/model/weights", "run/model.txt", "run/notes"]
    for name in names:
        KeylessGCSArtifactRepository(ROOT).blob(name).upload_from_string(name)
    yield names
    google.objects.create_bucket(BUCKET, {})


@pytest.mark.parametrize(
    ("root", "path", "gone"),
    [
        (ROOT, "run/notes", {"run/notes"}),
        (ROOT, "run/model", {"run/model", "run/model/weights"}),
        (f"{ROOT}/run", None, {"run/model", "run/model/weights", "run/model.txt", "run/notes"}),
        (ROOT, "run/no", set()),
    ],
)
def test_deleted_artifacts_are_kept_as_versions(
    google: Google, stored: list[str], root: str, path: str | None, gone: set[str]
) -> None:
    KeylessGCSArtifactRepository(root).delete_artifacts(path)
    prefix = "deletion/"
    live = google.objects.below(BUCKET, after="", prefix=prefix)
    kept = google.objects.versions(BUCKET, deleted=False, prefix=prefix)
    assert {each.attributes["name"].removeprefix(prefix) for each in live} == {*stored} - gone
    assert gone <= {each.attributes["name"].removeprefix(prefix) for each in kept}
