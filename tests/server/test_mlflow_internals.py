"""Each private name of MLflow's behaves as the server expects, or an upgrade fails here."""

import os
import subprocess
import sys
from importlib import import_module
from inspect import getsource

import pytest
from mlflow.utils.import_hooks import register_post_import_hook
from tracking_server.hot_routes.statements import SCHEMA_REVISION
from tracking_server.mlflow import internals

from tests.server.flask_app import import_flask


def test_the_names_of_the_launch_settings() -> None:
    constants = internals._server_constants()
    from mlflow.server import constants as imported

    for name in (
        "ARTIFACT_ROOT_ENV_VAR",
        "ARTIFACTS_DESTINATION_ENV_VAR",
        "BACKEND_STORE_URI_ENV_VAR",
        "CRYPTO_KEK_PASSPHRASE_ENV_VAR",
        "SERVE_ARTIFACTS_ENV_VAR",
    ):
        assert getattr(constants, name) == getattr(imported, name)


def test_the_constants_are_found_without_importing_the_server() -> None:
    # In a separate process: this one imported the server long ago.
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from tracking_server.mlflow import internals as i; i._server_constants();"
            "sys.exit('mlflow.server' in sys.modules)",
        ],
        check=True,
        timeout=60,
    )


def test_the_revisions() -> None:
    latest = internals.latest_schema_revision()
    known = internals.known_schema_revisions()
    assert latest in known
    assert len(known) > 20


def test_the_hot_routes_know_this_schema() -> None:
    """After an upgrade, read the new migrations and run test_hot_routes.py before this changes."""
    assert internals.latest_schema_revision() == SCHEMA_REVISION


def test_a_search_is_compiled_with_its_values() -> None:
    query, parameters = internals.runs_query("metrics.a > 1", ["tags.b DESC"], "ALL")
    names = [name for name, _ in parameters]
    assert {"experiment_ids", "offset", "limit"} < set(names)
    assert ("key_1", "a") in parameters
    assert f"${len(names)}::" in query
    assert f"${len(names) + 1}::" not in query
    with pytest.raises(ValueError, match="datasets"):
        internals.runs_query("datasets.name = 'x'", [], "ALL")


def test_the_public_settings_are_known_to_mlflow() -> None:
    from mlflow import environment_variables

    for name in (
        "MLFLOW_CONFIGURE_LOGGING",
        "MLFLOW_SERVER_ALLOWED_HOSTS",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE",
    ):
        assert getattr(environment_variables, name).name == name


def test_mlflow_encrypts_with_the_given_passphrase(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow.utils.crypto import KEKManager

    kek = ("CRYPTO_KEK_PASSPHRASE", "CRYPTO_KEK_VERSION")
    for name in ("ARTIFACT_ROOT", "ARTIFACTS_DESTINATION", *kek):
        constant = getattr(internals._server_constants(), f"{name}_ENV_VAR")
        monkeypatch.setenv(constant, os.environ.get(constant, ""))
    internals.configure_stores(
        artifact_root="mlflow-artifacts:/",
        artifact_destination="gs://b",
        kek_passphrase="ours",
        kek_version=3,
    )
    assert KEKManager().using_default_passphrase is False
    assert KEKManager().kek_version == 3
    assert KEKManager().get_kek() == KEKManager(passphrase="ours", kek_version=3).get_kek()
    assert KEKManager().get_kek() != KEKManager(passphrase="other", kek_version=3).get_kek()


def test_without_accounts_a_search_for_runs_does_not_import_mlflows_auth_app() -> None:
    import_flask()
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match=r"^mlflow.server.auth is for servers with"):
            import_module("mlflow.server.auth")
    from mlflow.server import handlers

    assert "from mlflow.server import auth" in getsource(handlers.search_runs_impl)


def test_mlflow_does_not_look_at_later_imports() -> None:
    import_flask()
    finders = [*sys.meta_path]
    register_post_import_hook(print, "tracking_server_that_is_never_imported")
    assert sys.meta_path == finders


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("notes.txt", "text/plain"),
        ("MLmodel", "text/plain"),
        ("plot.png", "image/png"),
        ("model.unheard-of", "application/octet-stream"),
    ],
)
def test_the_content_type_of_a_file(name: str, kind: str) -> None:
    assert internals.mime_type(name) == kind


def test_a_download_is_saved_under_any_name() -> None:
    assert internals.content_disposition("notes.txt") == "attachment; filename=notes.txt"
    assert "filename*=UTF-8''%C3%BC.txt" in internals.content_disposition("ü.txt")
