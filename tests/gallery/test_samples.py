"""Each sample logs what it should, as the server sees it, and reports errors in one line."""

import json
import re
from typing import Any

import pytest

from tests.gallery.conftest import (
    COMMIT,
    MEBIBYTE,
    SAMPLES,
    UNSAFE,
    Ended,
    Moved,
    Server,
    require,
)

TRAINING = (
    r"/api/2\.0/mlflow/(runs/(create|get|log-batch|log-metric|log-parameter|search|set-tag|update)"
    r"|metrics/get-history|experiments/get(-by-name)?)$"
)
"""The requests that hot routes handle."""

FORKED = [sample for sample in SAMPLES if sample not in ("notebook", "rest")]


@pytest.fixture
def curl() -> None:
    require("curl")


def worked(ended: dict[str, Ended], sample: str) -> str:
    """Check the outcome. Returns what the sample has printed."""
    done = ended[f"{sample}-right"]
    assert done.code == 0, done.out + done.err
    assert "Traceback" not in done.err
    assert done.left == [], "it left files where it ran"
    return done.out


def only(runs: list[dict[str, Any]]) -> dict[str, Any]:
    [run] = runs
    assert run["status"] == "FINISHED"
    return run


def test_plain(ended: dict[str, Ended], server: Server) -> None:
    worked(ended, "plain")
    run = only(server.runs("plain"))
    assert run["params"] == {"learning_rate": "0.1", "steps": "20"}
    assert run["tags"]["purpose"] == "gallery"
    losses = server.history(run, "loss")
    assert len(losses) == 20
    assert losses == sorted(losses, reverse=True)
    assert "2 is right" in server.text(run, "notes/result.txt")
    assert json.loads(server.text(run, "result.json")) == {"weight": run["metrics"]["weight"]}


def test_notebook(ended: dict[str, Ended], server: Server) -> None:
    worked(ended, "notebook")
    run = only(server.runs("notebook"))
    assert run["metrics"]["slope"] == pytest.approx(3, abs=0.2)
    assert server.artifacts(run)["line.png"]


def test_sklearn_autolog(ended: dict[str, Ended], server: Server) -> None:
    assert "read back, the model says [2 1 0]" in worked(ended, "sklearn_autolog")
    run = only(server.runs("sklearn_autolog"))
    assert run["params"]["max_depth"] == "3"
    assert run["metrics"]["training_accuracy_score"] > 0.9
    assert run["metrics"]["RandomForestClassifier_score_test"] > 0.9
    assert "training_confusion_matrix.png" in server.artifacts(run)
    assert [model["status"] for model in server.models("sklearn_autolog")] == ["LOGGED_MODEL_READY"]


def test_boosted_trees(ended: dict[str, Ended], server: Server) -> None:
    worked(ended, "boosted_trees")
    run = only(server.runs("boosted_trees"))
    losses = server.history(run, "validation_0-logloss")
    assert len(losses) > 20
    assert losses[-1] < losses[0] / 3
    assert "feature_importance_weight.png" in server.artifacts(run)
    models = server.models("boosted_trees")
    assert [model["status"] for model in models] == ["LOGGED_MODEL_READY"]


def test_neural_network(ended: dict[str, Ended], server: Server) -> None:
    worked(ended, "neural_network")
    run = only(server.runs("neural_network"))
    assert run["params"]["hidden_layer_sizes"] == "(64, 32)"
    losses = server.history(run, "loss")
    assert len(losses) > 5
    assert losses[-1] < losses[0] / 3
    assert run["metrics"]["MLPClassifier_score_test"] > 0.9
    models = server.models("neural_network")
    assert [model["status"] for model in models] == ["LOGGED_MODEL_READY"]


def test_sweep(ended: dict[str, Ended], server: Server) -> None:
    said = worked(ended, "sweep")
    runs = server.runs("sweep")
    [parent] = [run for run in runs if run["run_name"] == "sweep"]
    children = [run for run in runs if run is not parent]
    assert {run["tags"].get("mlflow.parentRunId") for run in children} == {parent["run_id"]}
    assert {run["status"] for run in runs} == {"FINISHED"}
    errors = {run["params"]["degree"]: run["metrics"]["error"] for run in children}
    assert len(errors) == 6
    assert parent["params"]["best_degree"] == min(errors, key=errors.__getitem__)
    assert f"best: degree {parent['params']['best_degree']}, " in said


def test_traces(ended: dict[str, Ended], server: Server) -> None:
    worked(ended, "traces")
    where = {"experiment_id": server.experiment("traces")}
    found = server.ask(
        "3.0/mlflow/traces/search",
        locations=[{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": where}],
    )["traces"]
    assert {trace["state"] for trace in found} == {"OK"}
    verdicts = {
        trace["request_preview"]: trace["assessments"][0]["feedback"]["value"] for trace in found
    }
    assert verdicts == {
        '{"question": "Where are artifacts kept?"}': True,
        '{"question": "What does it cost?"}': False,
    }
    for trace in found:
        used = json.loads(trace["trace_metadata"]["mlflow.trace.tokenUsage"])
        assert used["total_tokens"] == used["input_tokens"] + used["output_tokens"] > 0
        sizes = json.loads(trace["trace_metadata"]["mlflow.trace.sizeStats"])
        assert sizes["num_spans"] == 3


def test_registry(ended: dict[str, Ended], server: Server) -> None:
    said = worked(ended, "registry")
    assert "gallery-line@champion is version 1 now, and says 20.0 for 10" in said
    assert "gallery-line@champion is version 2 now, and says 30.0 for 10" in said
    model = server.ask("2.0/mlflow/registered-models/get?name=gallery-line")["registered_model"]
    assert model["aliases"] == [{"alias": "champion", "version": "2"}]


def test_large_artifact(ended: dict[str, Ended], server: Server) -> None:
    assert "12 MiB up in " in worked(ended, "large_artifact")
    run = only(server.runs("large_artifact"))
    assert server.artifacts(run) == {"large.bin": 12 * MEBIBYTE}
    log = server.log()
    assert f"{run['run_id']}" in log
    where = f"{run['experiment_id']}/{run['run_id']}/artifacts"
    assert f"/mpu/complete/{where}" in log
    assert f"PUT /api/2.0/mlflow-artifacts/artifacts/{where}" not in log


def test_direct_bucket(ended: dict[str, Ended], direct_server: Server) -> None:
    said = worked(ended, "direct_bucket")
    run = only(direct_server.runs("direct_bucket"))
    assert run["artifact_uri"].startswith("gs://")
    assert f"{run['artifact_uri']}/notes/direct.txt: From here to the bucket." in said
    assert direct_server.artifacts(run, "notes") == {"notes/direct.txt": 25}
    assert "/mlflow-artifacts/" not in direct_server.log()


@pytest.mark.usefixtures("curl")
def test_rest(ended: dict[str, Ended], server: Server, direct_server: Server) -> None:
    assert worked(ended, "rest").splitlines()[1:] == ["loss 0.25", "notes.txt: sent with curl"]
    run = only(server.runs("rest"))
    assert (run["params"], run["metrics"]) == ({"from": "curl"}, {"loss": 0.25})
    assert server.text(run, "notes.txt") == "sent with curl\n"


def test_the_workflow_logs_a_run_with_its_commit(ended: dict[str, Ended], server: Server) -> None:
    assert "pip install -r sample_client/requirements.txt" in worked(ended, "workflow")
    run = only(server.runs("my-org/my-model"))
    assert run["tags"]["mlflow.source.git.commit"] == COMMIT
    assert run["tags"]["mlflow.user"] == "ada"
    assert run["tags"]["job"] == "https://github.com/my-org/my-model/actions/runs/7"


def the_one_line(ended: Ended) -> str:
    """Returns the one line of a sample that failed at once and left no files."""
    assert ended.code == 1
    assert (ended.out, ended.left) == ("", [])
    [line] = ended.err.splitlines()
    # MLflow by itself retries for four minutes.
    assert ended.seconds < 20
    return line


@pytest.mark.parametrize("sample", FORKED)
def test_with_a_wrong_password(ended: dict[str, Ended], sample: str) -> None:
    said = the_one_line(ended[f"{sample}-wrong"])
    assert re.match(r"http://127\.0\.0\.1:\d+: ", said)
    assert "MLFLOW_TRACKING_USERNAME" in said
    assert "MLFLOW_TRACKING_PASSWORD" in said


@pytest.mark.parametrize("sample", FORKED)
def test_without_variables(ended: dict[str, Ended], sample: str) -> None:
    said = the_one_line(ended[f"{sample}-unset"])
    assert said.startswith("MLFLOW_TRACKING_URI ")
    assert "source .local/env" in said


@pytest.mark.parametrize("sample", ["plain", "rest"])
@pytest.mark.parametrize("variant", UNSAFE)
def test_no_password_is_sent_as_plain_text(
    ended: dict[str, Ended], sample: str, variant: str
) -> None:
    """Without a scheme, MLflow would take the address for a folder, and curl would use http."""
    said = the_one_line(ended[f"{sample}-{variant}"])
    assert said.startswith(f"MLFLOW_TRACKING_URI={UNSAFE[variant]} ")
    assert "https://" in said


def test_the_notebook_with_a_wrong_password(ended: dict[str, Ended]) -> None:
    """Jupyter adds its own frame around the error that ends a cell."""
    done = ended["notebook-wrong"]
    assert done.code == 1
    last = re.sub(r"\x1b\[[0-9;]*m", "", done.err).strip().splitlines()[-1]
    assert last.startswith("SystemExit: http://127.0.0.1:")
    assert "MLFLOW_TRACKING_USERNAME" in last


@pytest.mark.usefixtures("curl")
def test_curl_with_a_wrong_password(ended: dict[str, Ended]) -> None:
    said = the_one_line(ended["rest-wrong"])
    assert "401" in said
    assert "MLFLOW_TRACKING_PASSWORD" in said


@pytest.mark.usefixtures("curl")
def test_curl_that_is_sent_elsewhere(ended: dict[str, Ended], moved: str) -> None:
    """A redirect is an error, and the password isn't sent to its target."""
    said = the_one_line(ended["rest-moved"])
    assert said.startswith(moved)
    assert "302" in said
    assert "https://" in said
    assert Moved.asked == ["/version"]


@pytest.mark.usefixtures("curl")
def test_curl_without_variables(ended: dict[str, Ended]) -> None:
    assert the_one_line(ended["rest-unset"]).startswith("MLFLOW_TRACKING_URI ")


@pytest.mark.parametrize("sample", ["plain", "rest"])
def test_an_address_without_a_server(ended: dict[str, Ended], sample: str) -> None:
    assert "http://127.0.0.1:9" in the_one_line(ended[f"{sample}-unreachable"])


def test_the_bucket_without_a_google_login(ended: dict[str, Ended]) -> None:
    done = ended["direct_bucket-unknown"]
    assert done.code == 1
    [line] = done.err.splitlines()
    assert "gcloud auth application-default login" in line


def test_the_bucket_of_a_proxied_stack(ended: dict[str, Ended]) -> None:
    done = ended["direct_bucket-proxied"]
    assert done.code == 1
    assert "(mlflow-artifacts:" in done.err
    assert "Traceback" not in done.err


def test_hot_routes_handle_what_training_sends(ended: dict[str, Ended], server: Server) -> None:
    """Two of rest.sh are left to MLflow, and those sent before connections are open or free."""
    assert ended
    hot, passed_on = 0, []
    for entry in server.entries():
        request = entry["httpRequest"]
        if request["status"] == 200 and re.search(TRAINING, request["requestUrl"]):
            if entry.get("hot"):
                hot += 1
            else:
                passed_on.append(request["requestUrl"])
    assert hot > 200
    assert len(passed_on) < 0.05 * hot, passed_on
