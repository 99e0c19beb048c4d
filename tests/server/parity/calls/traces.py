"""Traces of both versions, spans by OTLP, assessments."""

import gzip
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.server.parity.call import Call, delete, get, keys, patch, post, text

_V2, _V3 = "/api/2.0/mlflow/traces", "/api/3.0/mlflow/traces"
_TRACE = "tr-0000000000000000000000000000$mark"
_OF_RUN = "tr-1000000000000000000000000000$mark"
_HERE = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "$experiment"}}


def otlp(
    content: bytes | str, kind: str, expected: int = 200, *, path: str = "/v1/traces", **more: str
) -> Call:
    headers = {"x-mlflow-experiment-id": "$experiment", "content-type": kind}
    encoded = {name.replace("_", "-"): value for name, value in more.items()}
    return Call(
        method="POST", path=path, content=content, expected=expected, headers=headers | encoded
    )


def spans(trace: str, *, at: int) -> str:
    """Returns a trace of two spans in OTLP's JSON; MLflow's id is `tr-` followed by OTLP's."""

    def span(number: int, parent: str, name: str, **attributes: str) -> dict[str, Any]:
        return {
            "traceId": trace.removeprefix("tr-"),
            "spanId": f"00000000000000{number:02x}",
            "parentSpanId": parent,
            "name": name,
            "startTimeUnixNano": str(1_000_000 * (at + number)),
            "endTimeUnixNano": str(1_000_000 * (at + 9 - number)),
            "attributes": [
                {"key": key, "value": {"stringValue": value}} for key, value in attributes.items()
            ],
            "status": {"code": 1},
        }

    spans = [
        span(
            1,
            "",
            "root",
            **{
                "mlflow.spanInputs": text({"q": "2+2"}),
                "mlflow.spanOutputs": text("4"),
                "mlflow.spanType": text("CHAIN"),
            },
        ),
        span(2, "0000000000000001", "child", **{"mlflow.spanType": text("LLM")}),
    ]
    return text({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": spans}]}]})


def _protobuf() -> bytes:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id = b"\x05" * 16, b"\x01" * 8
    span.name, span.start_time_unix_nano, span.end_time_unix_nano = "p", 30_000_000, 40_000_000
    return request.SerializeToString()


OTLP = [
    otlp(spans(_TRACE, at=10), "application/json"),
    otlp(spans(_OF_RUN, at=20), "application/json", x_mlflow_run_id="$run"),
    otlp(_protobuf(), "application/x-protobuf"),
    otlp(gzip.compress(_protobuf(), mtime=0), "application/x-protobuf", content_encoding="gzip"),
    otlp(_protobuf(), "application/x-protobuf", 400, content_encoding="gzip"),
    otlp(b"\xff\xff", "application/x-protobuf", 400),
    otlp("{", "application/json", 400),
    otlp("{}", "application/json", 400),
    otlp("{}", "text/plain", 400),
    otlp(_protobuf(), "application/x-protobuf", x_mlflow_experiment_id="987654"),
    post("/v1/traces", {}, 422),
]

VERSION_3 = [
    post(
        _V3,
        {
            "trace": {
                "trace_info": {
                    "trace_id": "tr-made-$mark",
                    "trace_location": _HERE,
                    "request_preview": "2+2",
                    "response_preview": "4",
                    "request_time": "2026-01-01T00:00:00Z",
                    "execution_duration": "1.5s",
                    "state": "OK",
                    "trace_metadata": {"mlflow.trace_schema.version": "3", "user": "u"},
                    "tags": {"mlflow.traceName": "made", "color": "red"},
                }
            }
        },
    ),
    post(_V3, {}, 400),
    get(f"{_V3}/tr-made-$mark"),
    get(f"{_V3}/tr-missing", 404),
    get(f"{_V3}/get", trace_id=_TRACE),
    get(f"{_V3}/get", 404, trace_id="tr-missing", allow_partial="true"),
    get(
        f"{_V3}/batchGet",
        trace_ids=[_TRACE, _OF_RUN],
    ),
    post(f"{_V3}/batchGetInfos", {"trace_ids": ["tr-made-$mark", "tr-missing"]}),
    post(
        f"{_V3}/search",
        {"locations": [_HERE], "filter": "tags.color = 'red'", "order_by": ["timestamp_ms DESC"]},
    ),
    post(
        f"{_V3}/search", {"locations": [_HERE], "max_results": 1}, keep={"page": "next_page_token"}
    ),
    post(f"{_V3}/search", {"locations": [_HERE], "max_results": 501}, 400),
    patch(f"{_V3}/tr-made-$mark/tags", {"key": "k", "value": "v"}),
    delete(f"{_V3}/tr-made-$mark/tags", {"key": "k"}),
    delete(f"{_V3}/tr-made-$mark/tags", {"key": "k"}, expected=404),
    post(
        f"{_V3}/calculate-filter-correlation",
        {
            "experiment_ids": ["$experiment"],
            "filter_string1": "tags.color = 'red'",
            "filter_string2": "status = 'OK'",
        },
    ),
    post(
        f"{_V3}/metrics",
        {
            "experiment_ids": ["$experiment"],
            "view_type": "TRACES",
            "metric_name": "trace_count",
            "aggregations": [{"aggregation_type": "COUNT"}],
        },
    ),
    post(
        f"{_V3}/metrics",
        {
            "experiment_ids": ["$experiment"],
            "view_type": "TRACES",
            "metric_name": "latency",
            "aggregations": [{"aggregation_type": "PERCENTILE", "percentile_value": 50}],
            "dimensions": ["trace_name"],
            "time_interval_seconds": 3600,
            "start_time_ms": 0,
            "end_time_ms": 4000000000000,
        },
    ),
    post(f"{_V3}/metrics", {"experiment_ids": ["$experiment"]}, 400),
    post("/api/2.0/mlflow/traces/link-to-run", {"trace_ids": ["tr-made-$mark"], "run_id": "$run"}),
    get("/ajax-api/3.0/mlflow/get-trace-artifact", request_id=_TRACE),
    get("/ajax-api/2.0/mlflow/get-trace-artifact", 404, request_id="tr-missing"),
    get("/ajax-api/3.0/mlflow/get-trace-artifact", 400),
    get(
        "/ajax-api/3.0/mlflow/get-trace-artifact",
        404,
        request_id="tr-made-$mark",
        path="7b51b4be-9d15-4c6f-b5a5-7f1f4a2f1f00",
    ),
]

_FEEDBACK = {
    "assessment_name": "right",
    "source": {"source_type": "HUMAN", "source_id": "u"},
    "feedback": {"value": True},
    "rationale": "because",
    "metadata": {"a": "b"},
}

ASSESSMENTS = [
    post(
        f"{_V3}/tr-made-$mark/assessments",
        {"assessment": _FEEDBACK},
        keep={"assessment": "assessment.assessment_id"},
    ),
    post(
        f"{_V3}/tr-made-$mark/assessments",
        {
            "assessment": {
                "assessment_name": "wanted",
                "source": {"source_type": "HUMAN", "source_id": "u"},
                "expectation": {"value": {"answer": 4}},
            }
        },
    ),
    post(f"{_V3}/tr-missing/assessments", {"assessment": _FEEDBACK}, 404),
    get(f"{_V3}/tr-made-$mark/assessments/$assessment"),
    get(f"{_V3}/tr-made-$mark/assessments/a-missing", 404),
    patch(
        f"{_V3}/tr-made-$mark/assessments/$assessment",
        {
            "assessment": {"rationale": "on second thought", "feedback": {"value": False}},
            "update_mask": "rationale,feedback",
        },
    ),
    get(f"{_V3}/tr-made-$mark"),
    delete(f"{_V3}/tr-made-$mark/assessments/$assessment"),
]

VERSION_2 = [
    post(
        _V2,
        {
            "experiment_id": "$experiment",
            "timestamp_ms": 1000,
            "request_metadata": keys(a="b"),
            "tags": keys(c="d"),
        },
        keep={"trace2": "trace_info.request_id"},
    ),
    patch(
        f"{_V2}/$trace2",
        {
            "timestamp_ms": 5000,
            "status": "OK",
            "request_metadata": keys(e="f"),
            "tags": keys(g="h"),
        },
    ),
    get(f"{_V2}/$trace2/info"),
    get(_V2, experiment_ids=["$experiment"], max_results=2, order_by=["timestamp_ms ASC"]),
    get(_V2, 400),
    patch(f"{_V2}/$trace2/tags", {"key": "k", "value": "v"}),
    delete(f"{_V2}/$trace2/tags", {"key": "k"}),
    get("/api/2.0/mlflow/unified-traces", 404),
    get("/api/2.0/mlflow/get-online-trace-details", 404),
]

# After all calls that need the traces.
DELETED = [
    post(f"{_V2}/delete-traces", {"experiment_id": "$experiment", "request_ids": ["$trace2"]}),
    post(
        f"{_V3}/delete-traces",
        {"experiment_id": "$experiment", "max_timestamp_millis": 100, "max_traces": 1},
    ),
    post(f"{_V3}/delete-traces", {"experiment_id": "$experiment"}, 400),
]

CALLS: list[Call] = [*OTLP, *VERSION_3, *ASSESSMENTS, *VERSION_2]
