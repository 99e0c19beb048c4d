"""Artifacts of runs and models: proxied, and with signed URLs, which only a bucket has."""

from tests.server.parity.call import Call, delete, get, post

_PROXY = "/api/2.0/mlflow-artifacts"
_FILES = f"{_PROXY}/artifacts"
_ROOT = "$experiment/$run/artifacts"


def _upload(path: str, content: bytes | str, expected: int = 200) -> Call:
    return Call(method="PUT", path=path, content=content, expected=expected)


CALLS: list[Call] = [
    _upload(f"{_FILES}/{_ROOT}/a.txt", "a $mark"),
    _upload(f"{_FILES}/{_ROOT}/a.txt", "again $mark"),
    _upload(f"{_FILES}/{_ROOT}/sub/b c%20ü.json", '{"a": 1}'),
    _upload(f"{_FILES}/{_ROOT}/sub/MLmodel", "flavors: {}"),
    _upload(f"{_FILES}/{_ROOT}/sub/deep/page.html", "<b>"),
    _upload(f"{_FILES}/{_ROOT}/empty", b""),
    _upload(f"{_FILES}/{_ROOT}/bytes.bin", bytes(range(256)) * 64),
    _upload(f"{_FILES}/{_ROOT}/folder/", "x", 400),
    _upload(f"{_FILES}/../escape", "x", 404),
    _upload(f"{_FILES}/%2e%2e/escape", "x", 400),
    _upload(f"{_FILES}//etc/passwd", "x", 400),
    get(f"{_FILES}/{_ROOT}/a.txt"),
    get(f"{_FILES}/{_ROOT}/sub/b c%20ü.json"),
    get(f"{_FILES}/{_ROOT}/sub/MLmodel"),
    get(f"{_FILES}/{_ROOT}/sub/deep/page.html"),
    get(f"{_FILES}/{_ROOT}/empty"),
    get(f"{_FILES}/{_ROOT}/bytes.bin"),
    get(f"{_FILES}/{_ROOT}/missing", 404),
    get(f"{_FILES}/{_ROOT}/sub", 400),
    get(f"{_FILES}/../../etc/passwd", 404),
    get(f"{_FILES}/..%2f..%2fetc%2fpasswd", 400),
    Call(method="HEAD", path=f"{_FILES}/{_ROOT}/a.txt"),
    get(_FILES, path=_ROOT),
    get(_FILES, path=f"{_ROOT}/sub"),
    get(_FILES, path=f"{_ROOT}/missing"),
    get(_FILES, 400, path="../.."),
    get("/api/2.0/mlflow/artifacts/list", run_id="$run"),
    get("/api/2.0/mlflow/artifacts/list", run_id="$run", path="sub"),
    get("/api/2.0/mlflow/artifacts/list", 400, run_id="$run", path="../other"),
    get("/get-artifact", run_uuid="$run", path="a.txt"),
    get("/get-artifact", run_id="$run", path="sub/deep/page.html"),
    get("/get-artifact", 404, run_id="$run", path="missing"),
    get("/get-artifact", 400, run_id="$run"),
    Call(
        method="POST",
        path="/ajax-api/2.0/mlflow/upload-artifact",
        params={"run_uuid": "$run", "path": "up/c.txt"},
        content="uploaded",
        headers={"Content-Type": "text/plain"},
    ),
    post("/ajax-api/2.0/mlflow/upload-artifact", expected=400),
    get("/get-artifact", run_id="$run", path="up/c.txt"),
    _upload(f"{_FILES}/$experiment/models/$model/artifacts/MLmodel", "flavors: {}"),
    _upload(f"{_FILES}/$experiment/models/$model/artifacts/data/w.txt", "w"),
    get("/api/2.0/mlflow/logged-models/$model/artifacts/directories"),
    get(
        "/api/2.0/mlflow/logged-models/$model/artifacts/directories",
        artifact_directory_path="data",
    ),
    get(
        "/ajax-api/2.0/mlflow/logged-models/$model/artifacts/files",
        artifact_file_path="data/w.txt",
    ),
    get("/ajax-api/2.0/mlflow/logged-models/$model/artifacts/files", 400),
    delete(f"{_FILES}/{_ROOT}/bytes.bin"),
    get(f"{_FILES}/{_ROOT}/bytes.bin", 404),
    delete(f"{_FILES}/{_ROOT}/sub/deep"),
    get(_FILES, path=_ROOT),
    # Only a bucket has signed URLs.
    post(
        f"{_PROXY}/mpu/create/{_ROOT}",
        {"path": "big.bin", "num_parts": 2},
        501,
    ),
    post(f"{_PROXY}/mpu/create/{_ROOT}", {"num_parts": 2}, 400),
    post(f"{_PROXY}/mpu/complete/{_ROOT}", {"path": "big.bin", "upload_id": "u"}, 400),
    post(
        f"{_PROXY}/mpu/complete/{_ROOT}",
        {"path": "big.bin", "upload_id": "u", "parts": [{"part_number": 1, "etag": "e"}]},
        501,
    ),
    post(f"{_PROXY}/mpu/abort/{_ROOT}", {"path": "big.bin", "upload_id": "u"}, 501),
    get(f"{_PROXY}/presigned/{_ROOT}/a.txt", 501),
    get("/api/2.0/mlflow/artifacts/list", run_id="$run", path="."),
    get("/api/2.0/mlflow/artifacts/list", run_id="$run", path="./sub"),
    get("/get-artifact", run_id="$run", path="./sub/./MLmodel"),
    get(f"{_PROXY}/artifacts/{_ROOT}/%2E/sub/MLmodel"),
    post(
        "/api/2.0/mlflow/artifacts/presigned-upload-url",
        {"run_id": "$run", "path": "x"},
        400,
    ),
    post("/api/2.0/mlflow/artifacts/presigned-upload-url", {"path": "x"}, 400),
    post(
        "/api/2.0/mlflow/artifacts/presigned-download-url",
        {"run_id": "$run", "path": "a.txt"},
        400,
    ),
    post(
        "/api/2.0/mlflow/artifacts/presigned-download-url",
        {"run_id": "$run", "path": "a.txt", "expiration": 0},
        400,
    ),
]
