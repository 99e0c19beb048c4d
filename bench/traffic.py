"""The requests of the benchmarks: the routes that clients use most, always on the same data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from bench.load import Request
from bench.process import BenchError, Server, basic
from bench.report import mlflow_version

API = "/api/2.0/mlflow"
RUNS = 64
"""As many runs as connections at most, so that two connections rarely write to one run."""
_NUMBER = "@NUMBER16DIGITS@"
_SPANS = 5
_OTLP = "/v1/traces"


@dataclass(frozen=True)
class Seed:
    """The data that exists before the first measurement."""

    experiment: str
    runs: Sequence[str]
    traces: Sequence[str]


def post(server: Server, path: str, **body: Any) -> dict[str, Any]:
    status, answer = server.call(
        "POST", API + path, json.dumps(body).encode(), content_type="application/json"
    )
    if status != 200:
        raise BenchError(f"{server.name} answered {status} to {path}: {answer[:200]!r}")
    return dict(json.loads(answer))


def seed(server: Server, *, traces: bool = True) -> Seed:
    """Create an experiment with runs, each with metrics, params and tags, and with traces."""
    experiment = post(server, "/experiments/create", name="bench")["experiment_id"]
    runs = []
    for number in range(RUNS):
        created = post(
            server,
            "/runs/create",
            experiment_id=experiment,
            start_time=1_700_000_000_000 + number,
            run_name=f"run {number}",
        )
        run = created["run"]["info"]["run_id"]
        runs.append(run)
        post(
            server,
            "/runs/log-batch",
            run_id=run,
            metrics=[
                {"key": f"metric {key}", "value": number / RUNS, "timestamp": 1, "step": step}
                for key in range(5)
                for step in range(5)
            ],
            params=[{"key": f"param {key}", "value": f"{number % 8}"} for key in range(5)],
            tags=[{"key": f"tag {key}", "value": f"{number % 8}"} for key in range(5)],
        )
    ids = []
    for number in range(RUNS if traces else 0):
        identity = f"{number:016d}".encode()
        status, answer = server.call("POST", _OTLP, trace(identity), **_otlp_headers(experiment))
        if status != 200:
            raise BenchError(f"{server.name} answered {status} to {_OTLP}: {answer[:200]!r}")
        ids.append(f"tr-{identity.hex()}")
    return Seed(experiment=experiment, runs=runs, traces=ids)


def requests(seed: Seed) -> list[Request]:
    """Returns one request for every route of the tables."""
    json_type = {"Content-Type": "application/json"}

    def body(**fields: Any) -> bytes:
        # The placeholder of a number must not be a string.
        return json.dumps(fields).replace(f'"{_NUMBER}"', _NUMBER).encode()

    def batch(name: str, count: int, **more: Any) -> Request:
        metrics = [
            {"key": f"metric {key}", "value": 0.5, "timestamp": _NUMBER, "step": 1}
            for key in range(count)
        ]
        return Request(
            name=name,
            method="POST",
            path=f"{API}/runs/log-batch",
            expected="{}",
            body=body(run_id="@ID@", metrics=metrics, **more),
            headers=json_type,
            ids=seed.runs,
        )

    return [
        Request(
            name="log-metric",
            method="POST",
            path=f"{API}/runs/log-metric",
            expected="{}",
            body=body(run_id="@ID@", key="loss", value=0.5, timestamp=_NUMBER, step=1),
            headers=json_type,
            ids=seed.runs,
        ),
        batch("log-batch", 10, tags=[{"key": "tag 0", "value": "again"}]),
        batch("log-batch of 100", 100),
        Request(
            name="runs/get",
            method="GET",
            path=f"{API}/runs/get?run_id=@ID@",
            expected='"param 4"',
            ids=seed.runs,
        ),
        Request(
            name="runs/search",
            method="POST",
            path=f"{API}/runs/search",
            expected='"next_page_token"',
            body=body(
                experiment_ids=[seed.experiment],
                filter="metrics.`metric 1` >= 0 and params.`param 1` != 'none'",
                max_results=25,
            ),
            headers=json_type,
        ),
        Request(
            name="traces in",
            method="POST",
            path=_OTLP,
            expected="",
            body=trace(_NUMBER.encode()),
            headers={"Content-Type": "application/x-protobuf"}
            | {"x-mlflow-experiment-id": seed.experiment},
        ),
        Request(
            name="traces out",
            method="GET",
            path="/api/3.0/mlflow/traces/get?trace_id=@ID@",
            expected='"span 4"',
            ids=seed.traces,
        ),
        Request(name="/version", method="GET", path="/version", expected=mlflow_version()),
    ]


def refused() -> Request:
    """A wrong password, each time from another address: one address would get 429 soon."""
    return Request(
        name="refused",
        method="GET",
        path=f"{API}/experiments/get?experiment_id=0",
        status=401,
        expected="they are wrong",
        headers={
            "Authorization": basic("mlflow", "wrong-password"),
            "X-Forwarded-For": "varies, see wrk/load.lua",
        },
    )


def trace(identity: bytes) -> bytes:
    """Returns an OTLP export of one trace, a root and its children with inputs and outputs."""
    assert len(identity) == 16
    export = ExportTraceServiceRequest()
    scope = export.resource_spans.add().scope_spans.add()
    for number in range(_SPANS):
        scope.spans.append(
            Span(
                trace_id=identity,
                span_id=f"{number:08d}".encode(),
                parent_span_id=b"" if number == 0 else b"00000000",
                name=f"span {number}",
                kind=Span.SPAN_KIND_INTERNAL,
                start_time_unix_nano=1_700_000_000_000_000_000 + number,
                end_time_unix_nano=1_700_000_000_100_000_000 + number,
                attributes=[
                    KeyValue(key=key, value=AnyValue(string_value=json.dumps({"text": "x" * 200})))
                    for key in ("mlflow.spanInputs", "mlflow.spanOutputs")
                ],
                status=Status(code=Status.STATUS_CODE_OK),
            )
        )
    return bytes(export.SerializeToString())


def _otlp_headers(experiment: str) -> dict[str, str]:
    return {"content_type": "application/x-protobuf", "x_mlflow_experiment_id": experiment}
