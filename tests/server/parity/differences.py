"""The intended differences between our server's and stock MLflow's responses, with reasons."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tracking_server.mlflow.not_offered import NEVER_OFFERED, OFFERED

_ARTIFACTS = r"/(ajax-)?api/2\.0/mlflow-artifacts"
_ERROR = r"body\.(detail|error_class|error_code|message|sqlstate): .*"
_STARTS_JOB = "|".join(path for _, path in NEVER_OFFERED | OFFERED)
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
    """`call` and `line` are patterns that must match all of each."""

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
        "Stock has none of these headers: tracking_server/response_headers.py.",
    ),
    Difference(
        ".*",
        r"cache-control: (None != 'private'|'(public, )?(?P<kept>.*)' != 'private, (?P=kept)')",
        "Every page requires a login, so no shared cache may store it.",
    ),
    Difference(
        r"(GET|HEAD) /(static-files/(index.html|manifest.json))?",
        r"(content-disposition|x-frame-options|cache-control|vary): .*",
        "tracking_server/page serves the page; frame-ancestors replaces X-Frame-Options.",
    ),
    Difference(
        rf"POST {_ARTIFACTS}/mpu/create/.*|(GET|HEAD) {_ARTIFACTS}/presigned/.*",
        rf"status: 501 != (200|404)|{_ERROR}|"
        r"body\.(credentials|upload_id|url|headers|file_size): .*",
        "Addresses in a bucket can be signed, in a folder they can't.",
    ),
    Difference(
        rf"POST {_ARTIFACTS}/mpu/(complete|abort)/.*",
        rf"status: 501 != 404|{_ERROR}",
        "A bucket has multipart uploads, but not the requested one.",
    ),
    Difference(
        r"GET .*/server-info",
        r"body\.multipart_(up|down)loads_enabled: False != True",
        "This server supports multipart transfers.",
    ),
    Difference(
        r"GET /health",
        r"content-type: 'text/plain; charset=utf-8' != 'text/html; charset=utf-8'",
        "The response is Flask's, so that a probe doesn't import FastAPI's half.",
    ),
    Difference(
        rf"GET {re.escape(_ASSISTANT)}/sessions/.*/stream",
        r"body: .*",
        "The assistant calls the gateway without credentials, which the gate requires.",
    ),
    Difference(
        rf"PUT {re.escape(_ASSISTANT)}/config",
        r"content-type: .*|cache-control: .*|vary: .*|body: .*",
        "The gate refuses the assistant to other computers, with its own message.",
    ),
    Difference(
        r"GET .*/gateway/supported-(providers|models)",
        r"body\.(providers|models): .*",
        "Left out: providers whose library the container lacks, and Databricks', whose library "
        "blocks the whole server.",
    ),
    Difference(
        r"POST .*/experiments/create",
        r"body\.message: .* != [\"'].?artifact_location is .*",
        "Artifacts are only in the bucket; this is checked before the rest of an address.",
    ),
    Difference(
        r"POST .*/gateway/secrets/create",
        r"body\.message: .* != 'provider is missing: .*",
        "Without its provider, the server can't know where a key may be sent.",
    ),
    Difference(
        r"POST .*/artifacts/presigned-download-url",
        r"body\.message: .* for parameter 'expiration' supplied: it must be a number .*",
        "A signed address outlives a changed password, so it is valid for at most an hour.",
    ),
    Difference(
        r"POST /v1/traces",
        rf"{_ERROR}|(cache-control|vary|x-content-type-options|x-frame-options): .*",
        "A body is decompressed within limits before MLflow reads it.",
    ),
    Difference(
        r"(GET|HEAD|POST) /graphql",
        r"status: 500 != 400|content-type: .*|body: .*",
        "Stock fails on a request without a query.",
    ),
    Difference(
        r"GET .*/experiments/search",
        rf"status: 500 != 501|cache-control: None != 'no-store'|{_ERROR}|"
        r"x-content-type-options: None != 'nosniff'",
        "A request for a workspace isn't worth a repetition, and MLflow's client repeats 500.",
    ),
    Difference(
        rf"POST ({_STARTS_JOB})|PUT .*/scorers/online-config|"
        r"\w+ .*/mlflow/workspaces(/.*)?",
        r"status: \d+ != 501|content-type: .*|cache-control: .*|vary: .*|"
        r"x-(content-type|frame)-options: .*|body(\.\w+)?: .*",
        "Jobs and workspaces are refused at once, with what to do instead.",
    ),
    Difference(
        r"GET .*/scorers/online-configs",
        r"body\.configs: .* != \[\]",
        "Automatic evaluation can't be switched on, because nothing would run it.",
    ),
    Difference(
        r"GET .*/experiments/get-by-name",
        rf"status: 500 != 400|{_ERROR}",
        "psycopg2 refuses a NUL before sending it; here Postgres refuses it.",
    ),
)


def unexplained(found: Iterable[Found]) -> list[Found]:
    return [one for one in found if not any(d.explains(one) for d in BY_DESIGN)]


def obsolete(found: Iterable[Found]) -> list[Difference]:
    """Returns the entries above that no response needs any more."""
    seen = list(found)
    return [d for d in BY_DESIGN if not any(d.explains(one) for one in seen)]
