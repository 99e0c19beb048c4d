"""Logs a run with every kind of data, reads it back and compares.

Reads MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD and
MLFLOW_EXPERIMENT_NAME, as MLflow itself does. Exits with 0 if everything came back as it was
logged, otherwise with 1 and a line that says what is wrong.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

VARIABLES = {
    "MLFLOW_TRACKING_URI": "pulumi stack output tracking_uri",
    "MLFLOW_TRACKING_USERNAME": "pulumi stack output tracking_username",
    "MLFLOW_TRACKING_PASSWORD": "pulumi stack output tracking_password --show-secrets",
    "MLFLOW_EXPERIMENT_NAME": "a name of your choice, for example my-experiment",
}
PARAMETERS = {"learning_rate": "0.01", "layers": "3"}
LOSSES = [1.0, 0.5, 0.25]
MODEL = Path(__file__).with_name("doubler.py")
NOTES = "Grüße from check_tracking.py\n"


class Problem(Exception):
    """A problem that the user can fix; the text says how."""


def check_variables() -> None:
    """Checks the variables before MLflow is imported, which takes some seconds."""
    missing = [f"  {name}: {source}" for name, source in VARIABLES.items() if not os.getenv(name)]
    if missing:
        raise Problem(
            "These variables are not set (on this computer: source .local/env):\n"
            + "\n".join(missing)
        )
    uri = os.environ["MLFLOW_TRACKING_URI"]
    # Over http, others could read the password.
    if not re.match(r"https://|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/|$)", uri):
        raise Problem(
            f"MLFLOW_TRACKING_URI is {uri!r}, wanted an address with https:// such as "
            "https://mlflow-123456789012.us-central1.run.app; http:// is only for this computer, "
            "for example http://127.0.0.1:8080"
        )


def check_server() -> None:
    """Checks the server with one request; MLflow would retry for minutes before it gives up."""
    import requests
    from requests.auth import HTTPBasicAuth

    uri = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
    user = os.environ["MLFLOW_TRACKING_USERNAME"]
    # As bytes, so that requests sends UTF-8, like MLflow.
    credentials = HTTPBasicAuth(user.encode(), os.environ["MLFLOW_TRACKING_PASSWORD"].encode())
    try:
        # A service that has scaled to zero needs some time for its first response.
        response = requests.get(
            f"{uri}/version", auth=credentials, timeout=60, allow_redirects=False
        )
    except requests.exceptions.SSLError as error:
        # Only the reason: the rest of the text names urllib3's objects.
        reason = str(error).rpartition("SSLError(")[2].strip("\"'()") or type(error).__name__
        raise Problem(
            f"No safe connection to {uri} ({reason}). Is MLFLOW_TRACKING_URI right? A server on "
            "this computer has http://, one on Google Cloud https:// and a certificate of Google's"
        ) from error
    except requests.exceptions.RequestException as error:
        raise Problem(
            f"{uri} can't be reached ({type(error).__name__}). Is MLFLOW_TRACKING_URI right, and "
            "does the server run? On this computer: make local-status"
        ) from error
    # Google's own 401 responses, to unknown callers, ask for a different kind of login.
    asks_password = response.headers.get("WWW-Authenticate", "").startswith("Basic")
    if response.status_code == 401 and asks_password:
        raise Problem(
            f"{uri} refuses user {user!r} with this password. Set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD to the stack's outputs"
        )
    if response.status_code != 200:
        said = f"{response.status_code} where an MLflow server says its version"
        ours = response.headers.get("X-Content-Type-Options") == "nosniff"
        if response.status_code in (302, 401, 403) and not ours:
            said += (
                " (if the stack's access is iam or iap: pip install sample_client/google_login, "
                "and set MLFLOW_TRACKING_AUTH to google-iam or google-iap)"
            )
        raise Problem(f"{uri} answers {said}: {' '.join(response.text[:300].split())}")


def check_bucket_access(artifact_uri: str) -> None:
    """Checks Google credentials for direct mode, where this client writes to the bucket itself."""
    if not artifact_uri.startswith("gs://"):
        return
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        google.auth.default()
    except DefaultCredentialsError as error:
        raise Problem(
            f"The artifacts of this experiment are in {artifact_uri}, and there are no Google "
            "credentials here. Run gcloud auth application-default login, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to a key file"
        ) from error


def log_and_compare() -> str:
    """Returns the link to the run's page."""
    # MLflow's own output would mix with ours.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    import mlflow

    experiment = mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])
    check_bucket_access(experiment.artifact_location)
    with mlflow.start_run() as run, tempfile.TemporaryDirectory() as folder:
        mlflow.log_params(PARAMETERS)
        for step, loss in enumerate(LOSSES):
            mlflow.log_metric("loss", loss, step=step)
        notes = Path(folder, "notes.txt")
        notes.write_text(NOTES, encoding="utf-8")
        mlflow.log_artifact(str(notes), artifact_path="texts")
        model = mlflow.pyfunc.log_model(
            name="doubler", python_model=str(MODEL), pip_requirements=["mlflow"]
        )
    run_id = run.info.run_id

    client = mlflow.MlflowClient()
    with tempfile.TemporaryDirectory() as folder:
        copy = client.download_artifacts(run_id, "texts/notes.txt", folder)
        found = {
            "parameters": client.get_run(run_id).data.params,
            "metrics": [metric.value for metric in client.get_metric_history(run_id, "loss")],
            "artifact": Path(copy).read_text(encoding="utf-8"),
            "model": list(mlflow.pyfunc.load_model(model.model_uri).predict([1, 2, 3])),
        }
    wanted = {"parameters": PARAMETERS, "metrics": LOSSES, "artifact": NOTES, "model": [2, 4, 6]}
    for what, value in wanted.items():
        if found[what] != value:
            raise Problem(f"The run's {what} came back as {found[what]!r}, not {value!r}")
        print(f"ok  {what}")
    uri = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
    return f"{uri}/#/experiments/{experiment.experiment_id}/runs/{run_id}"


def main() -> int:
    """Returns the exit code."""
    try:
        check_variables()
        # With a login plug-in, only MLflow's own requests pass Google's check.
        if not os.getenv("MLFLOW_TRACKING_AUTH"):
            check_server()
        link = log_and_compare()
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(
            f"{error.name} is not installed here: pip install -r sample_client/requirements.txt",
            file=sys.stderr,
        )
        return 1
    except Exception as error:  # errors of MLflow and the bucket explain themselves
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"Everything came back as it was logged: {link}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
