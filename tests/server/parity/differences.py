"""The intended differences between our server's and stock MLflow's responses, with reasons."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_ARTIFACTS = r"/(ajax-)?api/2\.0/mlflow-artifacts"
_ERROR = r"body\.(detail|error_class|error_code|message|sqlstate): .*"
_ASSISTANT = "/ajax-api/3.0/mlflow/assistant"


@dataclass(frozen=True)
class Found:
    call: str
    line: str
    """A line of `Answer.differences`."""

    def __str__(self) -> str:
        return f"{self.call}: {self.line}"


@dataclass(frozen=True)
class Difference:
    """`call` and `line` are patterns of the whole of each."""

    call: str
    line: str
    reason: str

    def explains(self, found: Found) -> bool:
        return bool(
            re.fullmatch(self.call, found.call) and re.fullmatch(self.line, found.line, re.DOTALL)
        )


BY_DESIGN = (
    Difference(
        ".*",
        r"(content-security-policy|cross-origin-(opener|resource)-policy|referrer-policy|"
        r"strict-transport-security): None != ['\"].*['\"]",
        "Stock has none of them: tracking_server/response_headers.py.",
    ),
    Difference(
        ".*",
        r"cache-control: (None != 'private'|'(public, )?(?P<kept>.*)' != 'private, (?P=kept)')",
        "Everything is behind a login, so no shared cache may keep it.",
    ),
    Difference(
        rf"POST {_ARTIFACTS}/mpu/create/.*|(GET|HEAD) {_ARTIFACTS}/presigned/.*",
        rf"status: 501 != (200|404)|{_ERROR}|"
        r"body\.(credentials|upload_id|url|headers|file_size): .*",
        "A bucket signs addresses, a folder can't.",
    ),
    Difference(
        rf"POST {_ARTIFACTS}/mpu/(complete|abort)/.*",
        rf"status: 501 != 404|{_ERROR}",
        "A bucket has multipart uploads, if not this one.",
    ),
    Difference(
        r"GET .*/server-info",
        r"body\.multipart_(up|down)loads_enabled: False != True",
        "So a client is told.",
    ),
    Difference(
        r"GET /health",
        r"content-type: 'text/plain; charset=utf-8' != 'text/html; charset=utf-8'",
        "Flask's answer, so that a probe doesn't have FastAPI's half imported.",
    ),
    Difference(
        rf"GET {re.escape(_ASSISTANT)}/sessions/.*/stream",
        r"body: .*",
        "The assistant calls the gateway over HTTP without credentials, which the gate wants.",
    ),
    Difference(
        rf"PUT {re.escape(_ASSISTANT)}/config",
        r"content-type: .*|cache-control: .*|vary: .*|body: .*",
        "The gate refuses the assistant to everybody elsewhere, in its own words.",
    ),
    Difference(
        r"GET .*/gateway/supported-(providers|models)",
        r"body\.(providers|models): .*",
        "Those that the container has no library for are left out, and Databricks', whose library "
        "makes the whole server wait.",
    ),
    Difference(
        r"POST .*/experiments/create",
        r"body\.message: .* != [\"'].?artifact_location is .*",
        "Artifacts are in the bucket alone, whatever else is wrong with an address.",
    ),
    Difference(
        r"POST .*/gateway/secrets/create",
        r"body\.message: .* != 'provider is missing: .*",
        "Without its provider nobody knows where a key may be sent.",
    ),
    Difference(
        r"POST .*/artifacts/presigned-download-url",
        r"body\.message: .* != 'expiration is .*",
        "A signed address outlives a changed password, so it holds an hour at most.",
    ),
    Difference(
        r"POST /v1/traces",
        rf"{_ERROR}|(cache-control|vary|x-content-type-options|x-frame-options): .*",
        "A body is decompressed within limits before MLflow has it.",
    ),
    Difference(
        r"(GET|HEAD|POST) /graphql",
        r"status: 500 != 400|content-type: .*|body: .*",
        "Stock fails at a request without a query.",
    ),
    Difference(
        r"GET .*/experiments/search",
        r"(x-(content-type|frame)-options|vary): None != '(nosniff|SAMEORIGIN|Origin)'",
        "Stock forgets these where it refuses a workspace before Flask is reached.",
    ),
    Difference(
        r"GET .*/experiments/get-by-name",
        rf"status: 500 != 400|{_ERROR}",
        "psycopg2 refuses a NUL before it is sent, Postgres after.",
    ),
)


def unexplained(found: Iterable[Found]) -> list[Found]:
    return [one for one in found if not any(d.explains(one) for d in BY_DESIGN)]


def obsolete(found: Iterable[Found]) -> list[Difference]:
    """Returns the entries above that no response needs any more."""
    seen = list(found)
    return [d for d in BY_DESIGN if not any(d.explains(one) for one in seen)]
