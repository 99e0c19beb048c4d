"""MLflow's page and its static files are served compressed, with headers for caches."""

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from tracking_server.page.accept_encoding import chosen
from tracking_server.page.files import build_folder, page_files
from tracking_server.page.static_files import CHUNK, PageFiles

pytestmark = pytest.mark.anyio

SCRIPT = "/static-files/static/js/main.0123abcd.js"
TEXT = b"let unpacked = true;\n" * (3 * CHUNK // 20)
FOREVER = "max-age=31536000, immutable"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small page as in the image: index.html as it is, its script only compressed."""
    (tmp_path / "static" / "js").mkdir(parents=True)
    (tmp_path / "index.html").write_text("<script src=main.js></script>")
    script = tmp_path / "static" / "js" / "main.0123abcd.js"
    script.with_name(script.name + ".br").write_bytes(b"in brotli")
    script.with_name(script.name + ".gz").write_bytes(gzip.compress(TEXT))
    (tmp_path / "static" / "plain.png").write_bytes(b"a picture")
    (tmp_path.parent / "secret.txt").write_text("outside")
    return tmp_path


@pytest.fixture
def client(folder: Path) -> httpx.AsyncClient:
    app = PageFiles(PlainTextResponse("passed on", 404), folder=folder)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="https://mlflow.example",
        headers={"Accept-Encoding": ""},
    )


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("br;q=0.5, gzip;q=0.8", "gzip"),
        ("br ; q=0.8 , gzip;q=0.8", "br"),
        ("*", "br"),
        ("*;q=0", "identity"),
        ("br;q=0, *", "gzip"),
        ("identity", "identity"),
        ("identity, gzip;q=0.5", "identity"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("identity;q=0", "identity"),
        ("deflate, zstd", "identity"),
        ("br;q=nonsense, gzip;q=2", "identity"),
        (";,;q=1,", "identity"),
    ],
)
def test_the_content_coding(header: str | None, coding: str) -> None:
    headers = [] if header is None else [(b"accept-encoding", header.encode())]
    assert chosen(headers, ["br", "gzip", "identity"]) == coding


@pytest.mark.parametrize("coding", ["br", "gzip", "identity"])
async def test_a_script_that_is_stored_compressed(client: httpx.AsyncClient, coding: str) -> None:
    async with client.stream("GET", SCRIPT, headers={"Accept-Encoding": coding}) as answer:
        raw = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert answer.status_code == 200
    unpack = {"br": lambda _: TEXT, "gzip": gzip.decompress, "identity": bytes}[coding]
    assert unpack(raw) == TEXT
    if coding == "br":
        assert raw == b"in brotli"
    assert answer.headers.get("content-encoding", "identity") == coding
    length = answer.headers.get("content-length")
    assert length == (None if coding == "identity" else str(len(raw)))
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == FOREVER
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers["etag"] == f'"0123abcd-{coding}"'


@pytest.mark.parametrize("path", ["/", "/static-files/index.html"])
async def test_the_page_is_revalidated_by_its_content(
    client: httpx.AsyncClient, folder: Path, path: str
) -> None:
    page = await client.get(path, headers={"Accept-Encoding": "br"})
    assert (page.status_code, page.text) == (200, "<script src=main.js></script>")
    assert page.headers["cache-control"] == "no-cache"
    assert page.headers["content-length"] == str(len(page.content))
    etag = page.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = await client.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    (folder / "index.html").write_text("<script src=more.js></script>")
    app = PageFiles(PlainTextResponse(""), folder=folder)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as later:
        changed = await later.get(f"https://x{path}", headers={"If-None-Match": etag})
    assert (changed.status_code, "more.js" in changed.text) == (200, True)


async def test_head_has_the_headers_of_get(client: httpx.AsyncClient) -> None:
    got = await client.get(SCRIPT, headers={"Accept-Encoding": "gzip"})
    head = await client.head(SCRIPT, headers={"Accept-Encoding": "gzip"})
    assert (head.status_code, head.content, head.headers) == (200, b"", got.headers)


@pytest.mark.parametrize(
    "path",
    [
        "/static-files/../secret.txt",
        "/static-files/%2e%2e/secret.txt",
        "/static-files//etc/passwd",
        "/static-files/",
        "/static-files/static",
        f"{SCRIPT}.gz",
        f"/static-files{SCRIPT}",
        "/version",
    ],
)
async def test_other_paths_are_passed_on(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.text) == (404, "passed on")


async def test_other_methods_are_passed_on(client: httpx.AsyncClient) -> None:
    assert (await client.post("/")).text == "passed on"


def test_the_files_of_mlflows_page() -> None:
    """If this fails, MLflow has a kind of file without a media type, or names without a hash."""
    files = page_files(build_folder())
    assert "application/octet-stream" not in {file.media_type for file in files.values()}
    mutable = {name for name, file in files.items() if not file.is_immutable}
    assert mutable == {
        "asset-manifest.json",
        "favicon.ico",
        "index.html",
        "lib/notebook-trace-renderer/index.html",
        "manifest.json",
    }


def test_finding_the_page_does_not_import_mlflow() -> None:
    code = (
        "import sys; from tracking_server.page import files, static_files;"
        "static_files.PageFiles(None, folder=files.build_folder());"
        "sys.exit('mlflow' in sys.modules or 'flask' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_a_websocket_is_passed_on(folder: Path) -> None:
    passed: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    await PageFiles(app, folder=folder)({"type": "websocket"}, None, None)  # type: ignore[arg-type]
    assert passed == ["websocket"]
