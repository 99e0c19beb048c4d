"""Cloud SQL's connection names."""

import pytest

from infra.facts.connection_name import ConnectionName


@pytest.mark.parametrize(
    ("text", "project"),
    [
        ("my-project:us-central1:mlflow", "my-project"),
        ("example.com:my-project:us-central1:mlflow", "example.com:my-project"),
    ],
)
def test_parsed_name_is_written_back_unchanged(text: str, project: str) -> None:
    name = ConnectionName.parse(text)
    assert (name.project, name.region, name.instance) == (project, "us-central1", "mlflow")
    assert str(name) == text
    assert name.database_id == f"{project}:mlflow"


@pytest.mark.parametrize("text", ["mlflow", "my-project:mlflow", "my-project::mlflow", "::"])
def test_text_without_three_parts_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="my-project:us-central1:my-instance"):
        ConnectionName.parse(text)
