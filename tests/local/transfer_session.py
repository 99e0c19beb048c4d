"""Run by test_transfers.py in stock MLflow's own environment: large files and their settings."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import mlflow
import requests
from mlflow.entities.multipart_upload import MultipartUploadPart
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

MEBIBYTE = 1 << 20
SERVER = urlsplit(os.environ["MLFLOW_TRACKING_URI"]).netloc
CONTENT = os.urandom(12 * MEBIBYTE + 5)

# The client's requests, recorded where they leave it.
requested: list[dict[str, Any]] = []
lost: set[str] = set()
"""Parts of addresses that can't be reached."""

_send = requests.Session.send


def send(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> Any:
    address = urlsplit(request.url or "")
    requested.append(
        {
            "method": request.method,
            "to": "server" if address.netloc == SERVER else "bucket",
            "path": address.path,
            "size": len(request.body) if isinstance(request.body, bytes) else None,
            "timeout": options.get("timeout"),
        }
    )
    if any(part in str(request.url) for part in lost):
        raise requests.ConnectionError("as told")
    return _send(self, request, **options)


requests.Session.send = send  # type: ignore[method-assign,assignment]


def during(action: Callable[[], Any]) -> list[dict[str, Any]]:
    requested.clear()
    action()
    return list(requested)


done: dict[str, object] = {}
client = mlflow.MlflowClient()
mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])
with mlflow.start_run() as run:
    run_id = run.info.run_id
repository = get_artifact_repository(client.get_run(run_id).info.artifact_uri)
folder = Path(tempfile.mkdtemp())
large = folder / "large.bin"
large.write_bytes(CONTENT)


def ask(method: str, url: str, data: bytes = b"x") -> requests.Response:
    return requests.request(method, url, data=data, timeout=60)


def listed() -> dict[str, int | None]:
    return {info.path: info.file_size for info in client.list_artifacts(run_id)}


def downloaded(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as copy:
        return Path(client.download_artifacts(run_id, name, copy)).read_bytes()


# Uploaded to the bucket, in parts as large as the client's settings say. The server decides what is
# downloaded from the bucket; this file isn't large enough.
uploading = during(lambda: client.log_artifact(run_id, str(large)))
parts = sorted(one["size"] for one in uploading if one["to"] == "bucket")
done["parts"] = parts
done["timeouts"] = {one["timeout"] for one in uploading if "/mpu/" in one["path"]} == {77}
downloading = during(lambda: done.update({"content": downloaded("large.bin") == CONTENT}))
done["downloaded from"] = sorted({one["to"] for one in downloading})

# A part is sent twice, and the object exists only when all parts are complete.
create = repository.create_multipart_upload("again.bin", 2)
first, second = (credential.url for credential in create.credentials)
halves = CONTENT[: 6 * MEBIBYTE], CONTENT[6 * MEBIBYTE :]
ask("PUT", first, os.urandom(5 * MEBIBYTE)).raise_for_status()
sent = [ask("PUT", url, half) for url, half in zip((first, second), halves, strict=True)]
done["unseen until complete"] = "again.bin" not in listed()
repository.complete_multipart_upload(
    "again.bin",
    create.upload_id,
    [MultipartUploadPart(n, part.headers["ETag"], "") for n, part in enumerate(sent, 1)],
)
done["a part sent twice"] = downloaded("again.bin") == CONTENT
done["a part after completion"] = ask("PUT", first).status_code

# An address allows one operation only.
other = repository.create_multipart_upload("other.bin", 2)
url = other.credentials[0].url
done["lifetime of a part"] = parse_qs(urlsplit(url).query)["X-Goog-Expires"]
done["strangers"] = {
    "another object": ask("PUT", url.replace("other.bin", "large.bin")).status_code,
    "another part": ask("PUT", url.replace("partNumber=1", "partNumber=2")).status_code,
    "another method": ask("GET", url).status_code,
    "another upload": ask("PUT", url.replace(other.upload_id, create.upload_id)).status_code,
}
repository.abort_multipart_upload("other.bin", other.upload_id)
done["a part after abandonment"] = ask("PUT", url).status_code

# A part can't be sent: the client abandons the upload, and no data of it stays.
lost.add("partNumber=2")
broken = folder / "broken.bin"
broken.write_bytes(CONTENT)
try:
    client.log_artifact(run_id, str(broken))
    done["given up"] = "it was not"
except MlflowException:
    done["given up"] = any("/mpu/abort/" in one["path"] for one in requested)
lost.clear()
done["listed"] = listed() == {"large.bin": len(CONTENT), "again.bin": len(CONTENT)}

# Through the server.
os.environ["MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD"] = "false"
os.environ["MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"] = "false"
proxied = during(lambda: client.log_artifact(run_id, str(broken)))
proxied += during(lambda: done.update({"proxied": downloaded("broken.bin") == CONTENT}))
done["proxied alone"] = {one["to"] for one in proxied} == {"server"}
print(json.dumps(done))
