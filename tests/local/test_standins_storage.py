"""Cloud Storage: permissions, signatures, multipart uploads, ranges, interrupted uploads."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlparse

import pytest

from tests.local.standins import BUCKET, SERVER, SIGNER, STRANGER, Answer, StandIns, call, project

MEBIBYTE = 1 << 20
ROOT = Path(__file__).resolve().parents[2]
SERVER_PYTHON = ROOT / ".venvs/server/bin/python"


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIns]:
    with project(tmp_path_factory.mktemp("storage")) as made:
        yield made


def signed(
    google: StandIns,
    method: str,
    name: str,
    *,
    signer: str = SIGNER,
    age: int = 0,
    lifetime: int = 300,
    signed_headers: str = "host",
    **query: str,
) -> str:
    """Returns a V4 signed URL, written from the specification instead of with our own code.

    https://cloud.google.com/storage/docs/access-control/signing-urls-manually
    """
    host = urlparse(google.cloud.project.storage_endpoint).netloc
    at = datetime.now(UTC) - timedelta(seconds=age)
    stamp, scope = at.strftime("%Y%m%dT%H%M%SZ"), at.strftime("%Y%m%d/auto/storage/goog4_request")
    query |= {
        "X-Goog-Algorithm": "GOOG4-RSA-SHA256",
        "X-Goog-Credential": f"{signer}/{scope}",
        "X-Goog-Date": stamp,
        "X-Goog-Expires": str(lifetime),
        "X-Goog-SignedHeaders": signed_headers,
    }
    path = f"/{BUCKET}/{quote(name, safe='/~')}"
    encoded = "&".join(
        sorted(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in query.items())
    )
    request = f"{method}\n{path}\n{encoded}\nhost:{host}\n\n{signed_headers}\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(request.encode()).hexdigest()
    message = f"GOOG4-RSA-SHA256\n{stamp}\n{scope}\n{digest}"
    signature = google.cloud.project.keys.sign(signer, message.encode()).hex()
    return f"http://{host}{path}?{encoded}&X-Goog-Signature={signature}"


def put(google: StandIns, name: str, body: bytes) -> Answer:
    return call("PUT", google.object(quote(name)), body=body, headers=google.bearer(SERVER))


def get(google: StandIns, name: str, **headers: str) -> Answer:
    return call("GET", google.object(quote(name)), headers={**google.bearer(SERVER), **headers})


def code(answer: Answer) -> str:
    found = re.search("<Code>(.*)</Code>", answer.text)
    assert found, answer.text
    return found[1]


# Signatures


def test_a_signed_url_is_accepted(google: StandIns) -> None:
    name = "signed/with space+ü%#.bin"
    assert call("PUT", signed(google, "PUT", name), body=b"x" * 10).status == 200
    answer = call("GET", signed(google, "GET", name, **{"response-content-type": "text/x"}))
    assert (answer.status, answer.body) == (200, b"x" * 10)
    assert answer.headers["Content-Type"] == "text/x"


@pytest.mark.parametrize(
    ("change", "status", "expected"),
    [
        (lambda google: signed(google, "GET", "a", age=301), 400, "ExpiredToken"),
        (lambda google: signed(google, "GET", "a", age=-3600), 403, "AccessDenied"),
        (lambda google: signed(google, "GET", "a", signer=STRANGER), 403, "AccessDenied"),
        (lambda google: signed(google, "PUT", "a"), 403, "SignatureDoesNotMatch"),
        (
            lambda google: signed(google, "GET", "b").replace("/b?", "/a?"),
            403,
            "SignatureDoesNotMatch",
        ),
        (lambda google: signed(google, "GET", "a") + "&x=1", 403, "SignatureDoesNotMatch"),
        (
            lambda google: signed(google, "GET", "a").replace("Expires=300", "Expires=900"),
            403,
            "SignatureDoesNotMatch",
        ),
        (
            lambda google: signed(google, "GET", "a").replace("mlflow-signer%40", "nobody%40"),
            403,
            "SignatureDoesNotMatch",
        ),
        (lambda google: signed(google, "GET", "a", lifetime=604801), 400, "InvalidArgument"),
        (lambda google: signed(google, "GET", "a", signed_headers="range"), 400, "InvalidArgument"),
        (lambda google: signed(google, "GET", "a").split("&X-Goog-Sig")[0], 400, "InvalidArgument"),
        (lambda google: google.object("a"), 401, "AuthenticationRequired"),
    ],
    ids=[
        "expired",
        "from the future",
        "signer without permission",
        "another method",
        "another object",
        "another query",
        "longer life",
        "another signer",
        "too long a life",
        "host not signed",
        "no signature",
        "unsigned",
    ],
)
def test_a_url_is_refused(google: StandIns, change: object, status: int, expected: str) -> None:
    put(google, "a", b"hidden")
    assert callable(change)
    answer = call("GET", change(google))
    assert (answer.status, code(answer)) == (status, expected)
    assert b"hidden" not in answer.body


def test_a_header_that_is_not_signed_is_refused(google: StandIns) -> None:
    url = signed(google, "PUT", "a")
    answer = call("PUT", url, body=b"x", headers={"x-goog-meta-owner": "me"})
    assert (answer.status, code(answer)) == (400, "MalformedSecurityHeader")


# Permissions


@pytest.mark.parametrize(
    ("who", "status", "reason"),
    [
        (None, 401, "required"),
        ("?", 401, "authError"),
        (STRANGER, 403, "forbidden"),
        (SERVER, 200, ""),
    ],
)
def test_the_json_api_requires_a_token_with_permission(
    google: StandIns, who: str | None, status: int, reason: str
) -> None:
    headers = {"Authorization": "Bearer nonsense"} if who == "?" else {}
    if who and who != "?":
        headers = google.bearer(who)
    answer = call(
        "GET", f"{google.cloud.project.storage_endpoint}/storage/v1/b/{BUCKET}/o", headers=headers
    )
    assert answer.status == status
    if reason:
        assert answer.json["error"]["errors"][0]["reason"] == reason


def test_missing_objects_and_buckets_have_separate_errors(google: StandIns) -> None:
    assert code(get(google, "not-there")) == "NoSuchKey"
    elsewhere = f"{google.cloud.project.storage_endpoint}/no-such-bucket/x"
    assert code(call("GET", elsewhere, headers=google.bearer(SERVER))) == "NoSuchBucket"


# Objects


def test_object_names_are_not_treated_as_paths(google: StandIns) -> None:
    for name in ("n", "n/m", "../n", "n//m", "n/../../m", "é/?#%2F"):
        assert put(google, name, name.encode()).status == 200
    for name in ("n", "n/m", "../n", "n//m", "n/../../m", "é/?#%2F"):
        # The whole name is encoded, because urllib would resolve the dots.
        url = google.object(quote(name, safe="").replace(".", "%2E"))
        assert call("GET", url, headers=google.bearer(SERVER)).text == name


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        ("bytes=0-2", 206, b"012"),
        ("bytes=7-", 206, b"789"),
        ("bytes=7-99", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=-99", 206, b"0123456789"),
        ("bytes=10-", 416, None),
        ("lines=1-2", 200, b"0123456789"),
    ],
)
def test_ranges(google: StandIns, wanted: str, status: int, body: bytes | None) -> None:
    put(google, "digits", b"0123456789")
    answer = get(google, "digits", Range=wanted)
    assert answer.status == status
    if body is None:
        assert answer.headers["Content-Range"] == "bytes */10"
    else:
        assert answer.body == body


def test_a_body_with_a_wrong_hash_is_refused(google: StandIns) -> None:
    wrong = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
    headers = {**google.bearer(SERVER), "Content-MD5": wrong}
    answer = call("PUT", google.object("hashed"), body=b"this", headers=headers)
    assert (answer.status, code(answer)) == (400, "BadDigest")
    assert get(google, "hashed").status == 404


def test_an_interrupted_upload_leaves_nothing(google: StandIns) -> None:
    files = google.cloud.project.store.files
    before = set(files.iterdir())
    host, _, port = urlparse(google.cloud.project.storage_endpoint).netloc.partition(":")
    token = google.bearer(SERVER)["Authorization"]
    with socket.create_connection((host, int(port))) as connection:
        head = f"PUT /{BUCKET}/broken HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
        connection.sendall(f"{head}Content-Length: 9999999\r\n\r\n".encode() + b"x" * 400_000)
        time.sleep(0.2)
    deadline = time.monotonic() + 5
    while set(files.iterdir()) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(files.iterdir()) == before
    assert get(google, "broken").status == 404


def test_a_resumable_upload_continues_where_it_stopped(google: StandIns) -> None:
    base = f"{google.cloud.project.storage_endpoint}/upload/storage/v1/b/{BUCKET}/o"
    headers = {**google.bearer(SERVER), "Content-Type": "application/json"}
    metadata = json.dumps({"contentType": "text/x"}).encode()
    started = call("POST", f"{base}?uploadType=resumable&name=big", body=metadata, headers=headers)
    session, chunk = started.headers["Location"], 256 * 1024
    data = os.urandom(2 * chunk + 7)
    total = len(data)

    def send(span: str, body: bytes) -> Answer:
        return call("PUT", session, body=body, headers={"Content-Range": f"bytes {span}"})

    assert send("*/*", b"").headers.get("Range") is None
    assert send(f"0-{chunk - 1}/*", data[:chunk]).status == 308
    assert send(f"*/{total}", b"").headers["Range"] == f"bytes=0-{chunk - 1}"
    # Sent again with more data: the server skips the bytes that it has.
    assert send(f"0-{2 * chunk - 1}/*", data[: 2 * chunk]).status == 308
    assert get(google, "big").status == 404
    last = send(f"{2 * chunk}-{total - 1}/{total}", data[2 * chunk :])
    assert last.status == 200
    assert last.json["md5Hash"]
    assert last.json["size"] == str(total)
    assert last.json["contentType"] == "text/x"
    assert get(google, "big").body == data
    assert send(f"*/{total}", b"").status == 200, "asked again after the end"


# Multipart uploads


def _initiate(google: StandIns, name: str) -> str:
    answer = call("POST", signed(google, "POST", name, uploads=""))
    found = re.search("<UploadId>(.*)</UploadId>", answer.text)
    assert found
    return found[1]


def _part(google: StandIns, name: str, upload: str, number: int, body: bytes) -> tuple[int, str]:
    url = signed(google, "PUT", name, uploadId=upload, partNumber=str(number))
    answer = call("PUT", url, body=body)
    assert answer.status == 200, answer.text
    return number, answer.headers["ETag"]


def _complete(google: StandIns, name: str, upload: str, parts: list[tuple[int, str]]) -> Answer:
    rows = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        for number, etag in parts
    )
    body = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
    return call("POST", signed(google, "POST", name, uploadId=upload), body=body)


def test_a_multipart_object_is_visible_only_when_complete(google: StandIns) -> None:
    name, first, last = "multi part/ü", os.urandom(5 * MEBIBYTE), b"the end"
    upload = _initiate(google, name)
    parts = [_part(google, name, upload, 1, os.urandom(5 * MEBIBYTE)), (2, "")]
    parts[1] = _part(google, name, upload, 2, last)
    parts[0] = _part(google, name, upload, 1, first)  # sent again: the last one counts
    assert get(google, name).status == 404
    listed = call("GET", signed(google, "GET", name, uploadId=upload)).text
    assert re.findall(r"<Size>(\d+)</Size>", listed) == [str(len(first)), str(len(last))]
    assert _complete(google, name, upload, parts).status == 200
    whole = first + last
    assert get(google, name).body == whole
    middle = f"bytes={len(first) - 2}-{len(first) + 1}"
    assert get(google, name, Range=middle).body == first[-2:] + last[:2]
    assert code(_complete(google, name, upload, parts)) == "NoSuchUpload"


def test_an_aborted_upload_is_deleted(google: StandIns) -> None:
    before = set(google.cloud.project.store.files.iterdir())
    upload = _initiate(google, "aborted")
    _part(google, "aborted", upload, 1, b"x")
    assert call("DELETE", signed(google, "DELETE", "aborted", uploadId=upload)).status == 204
    assert set(google.cloud.project.store.files.iterdir()) == before
    url = signed(google, "PUT", "aborted", uploadId=upload, partNumber="1")
    assert code(call("PUT", url, body=b"x")) == "NoSuchUpload"


def test_invalid_parts_are_refused(google: StandIns) -> None:
    upload = _initiate(google, "refused")
    small, last = (
        _part(google, "refused", upload, 1, b"x"),
        _part(google, "refused", upload, 2, b"y"),
    )
    assert code(_complete(google, "refused", upload, [small, last])) == "EntityTooSmall"
    assert code(_complete(google, "refused", upload, [last, small])) == "InvalidPartOrder"
    assert code(_complete(google, "refused", upload, [(1, '"00"')])) == "InvalidPart"
    assert code(_complete(google, "refused", upload, [(3, last[1])])) == "InvalidPart"
    url = signed(google, "PUT", "refused", uploadId=upload, partNumber="10001")
    assert code(call("PUT", url, body=b"x")) == "InvalidArgument"
    elsewhere = signed(google, "PUT", "other", uploadId=upload, partNumber="1")
    assert code(call("PUT", elsewhere, body=b"x")) == "NoSuchUpload"


def test_objects_outlive_a_run_and_unfinished_uploads_do_not(tmp_path: Path) -> None:
    with project(tmp_path) as made:
        put(made, "kept", b"data")
        upload = _initiate(made, "left")
        _part(made, "left", upload, 1, b"x")
        assert len(list(made.cloud.project.store.files.iterdir())) == 2
    with project(tmp_path) as made:
        assert get(made, "kept").body == b"data"
        assert len(list(made.cloud.project.store.files.iterdir())) == 1


@pytest.mark.skipif(not SERVER_PYTHON.exists(), reason="the server's environment is not installed")
def test_googles_own_clients_work_unmodified(google: StandIns) -> None:
    """google-auth with the metadata server, google-cloud-storage, and the server's own client."""
    google.secret("client", "a value")
    google.declare(
        "secretmanager/secretIamMember:SecretIamMember",
        secretId="client",
        role="roles/secretmanager.secretAccessor",
        member=f"serviceAccount:{SERVER}",
    )
    environment = {
        "PATH": os.defpath,
        "HOME": "/nonexistent",
        "BUCKET": BUCKET,
        "API_ENDPOINT_OVERRIDE": google.cloud.project.storage_endpoint,
        "SECRET_MANAGER_ENDPOINT": google.cloud.project.secret_manager_endpoint,
        **google.cloud.project.metadata_environment(SERVER),
    }
    script = Path(__file__).with_name("google_clients.py")
    answer = subprocess.run(
        [SERVER_PYTHON, script], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
