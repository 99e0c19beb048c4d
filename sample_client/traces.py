"""Traces of a function that answers questions: spans, tokens and feedback. No model is called."""

import os
import re
import sys
from unittest.mock import patch

import mlflow
from mlflow.entities import AssessmentSource, SpanType
from mlflow.tracing.constant import SpanAttributeKey

PAGES = {"artifacts": "Artifacts are kept in a bucket.", "runs": "Runs are kept in PostgreSQL."}


def connect() -> None:
    """Fails at once if the server can't be used: MLflow would write files or retry for minutes."""
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    for name in names:
        if not os.getenv(name):
            sys.exit(f"{name} is not set: ask who runs the server, or source .local/env")
    if not re.match(r"https://|http://(localhost|127\.0\.0\.1)(:\d+)?(/|$)", os.environ[names[0]]):
        sys.exit(f"{names[0]}={os.environ[names[0]]} lacks https:// (http:// only on localhost)")
    try:
        with patch.dict(os.environ, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"):
            mlflow.set_experiment(os.getenv("MLFLOW_EXPERIMENT_NAME", "gallery"))
    except mlflow.MlflowException as error:
        why = " ".join(str(error).split())[:300]
        if error.get_http_status_code() == 401:
            why = f"wrong username or password: set {names[1]} and {names[2]}"
        sys.exit(f"{os.environ[names[0]]}: {why}")


@mlflow.trace(span_type=SpanType.RETRIEVER)
def retrieve(question: str) -> list[str]:
    return [text for word, text in PAGES.items() if word in question.lower()]


@mlflow.trace(span_type=SpanType.CHAT_MODEL)
def model(prompt: str) -> str:
    """Stands for a real model, whose tokens MLflow's autologging would count."""
    answer = " ".join(prompt.splitlines()[:-1]) or "I don't know."
    used, made = len(prompt.split()), len(answer.split())
    if span := mlflow.get_current_active_span():
        usage = {"input_tokens": used, "output_tokens": made, "total_tokens": used + made}
        span.set_attribute(SpanAttributeKey.CHAT_USAGE, usage)
    return answer


@mlflow.trace(span_type=SpanType.CHAIN)
def answer(question: str) -> str:
    return model("\n".join([*retrieve(question), question]))


connect()
person = AssessmentSource(source_type="HUMAN", source_id="gallery")
for question, helpful in {"Where are artifacts kept?": True, "What does it cost?": False}.items():
    print(answer(question))
    trace = str(mlflow.get_last_active_trace_id())
    mlflow.flush_trace_async_logging()
    mlflow.log_feedback(trace_id=trace, name="helpful", value=helpful, source=person)
