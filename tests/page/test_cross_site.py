"""Other sites' pages in a browser with saved credentials: they can change and read nothing.

Today's Chromium attaches credentials only to requests within the site that got them. Other
browsers, and Chromium with an administrator's setting, attach them everywhere. The browser here
does too, or the requests would be refused only because they lack a password. Each request is also
made from the server's own page, where it must work.
"""

import base64
import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Playwright

from tests.local.conftest import Stack
from tests.page.conftest import (
    CUSTOM,
    ELSEWHERE,
    EXPORTED,
    NEIGHBOUR,
    SIBLING,
    Seeded,
    Web,
    log_in,
)

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
# A page of the server that makes no requests itself, with the permissions of MLflow's page.
OWN_PAGE = "/static-files/manifest.json"

LOCAL, OTHER_PORT = "{local}", "{other_port}"
SITES = [
    # the page's site, and the address that it attacks
    (f"https://{ELSEWHERE}", f"https://{EXPORTED}"),
    (f"http://{ELSEWHERE}", f"https://{EXPORTED}"),
    (f"https://{NEIGHBOUR}", f"https://{EXPORTED}"),
    (f"https://{SIBLING}", f"https://{CUSTOM}"),
    (f"http://{ELSEWHERE}", LOCAL),
    (OTHER_PORT, LOCAL),
]

# Ways for a page to send a request. Each script returns at once or after the browser's checks.
MEANS = {
    "form": """({url, body}) => {
        const form = document.createElement('form');
        Object.assign(form, {action: url, method: 'POST', enctype: 'text/plain'});
        const field = document.createElement('input');
        Object.assign(field, {name: body, value: ''});
        form.append(field);
        document.body.append(form);
        form.submit();
    }""",
    "beacon": "({url, body}) => { navigator.sendBeacon(url, body); }",
    "fetch": """({url, body}) => {
        fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include', body}).catch(() => {});
    }""",
    "fetch without credentials": """({url, body}) => {
        fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'omit', body}).catch(() => {});
    }""",
    "fetch of JSON": """({url, body}) => {
        const headers = {'Content-Type': 'application/json'};
        fetch(url, {method: 'POST', credentials: 'include', headers, body}).catch(() => {});
    }""",
    "PUT": """({url, body}) => {
        fetch(url, {method: 'PUT', credentials: 'include', body}).catch(() => {});
    }""",
}

# Ways for a page to embed a file of another site. Returns whether it could.
SHOWING = """([tag, url]) => new Promise(resolve => {
    const element = document.createElement(tag);
    element.onload = () => resolve(true);
    element.onerror = () => resolve(false);
    element.src = url;
    document.body.append(element);
})"""

fresh = count()


@dataclass(frozen=True)
class Attempt:
    """A request that changes something, with the method and status that other sites must get."""

    means: str
    path: str
    body: str = "text"
    refused: tuple[str, int] = ("POST", 403)

    def make(self, page: Page, origin: str, seeded: Seeded) -> str:
        """Send the request. Returns its path without the query."""
        values = {"RUN": seeded.best, "EXPERIMENT": seeded.experiment, "NEW": f"x{next(fresh)}"}
        path, body = self.path, self.body
        for name, value in values.items():
            path, body = path.replace(name, value), body.replace(name, value)
        argument = {"url": origin + path, "body": body}
        # A form navigates, and closing a tab during a navigation fails.
        with page.expect_navigation() if self.means == "form" else nullcontext():
            page.evaluate(MEANS[self.means], argument)
        return path.partition("?")[0]


# The gate's message. MLflow's own guard only checks some paths, and has another message.
CROSS_SITE = (
    "This request comes from another site's page and is refused. Open this server's own address "
    "in the browser, and do it there.\n"
)
UPLOAD = "/ajax-api/2.0/mlflow/upload-artifact?run_uuid=RUN&path=NEW"
# The browser sends a preflight request before requests that need CORS, without credentials.
PREFLIGHT = ("OPTIONS", 401)
TAG = '{"run_id": "RUN", "key": "NEW", "value": "x"}'
ATTEMPTS = [
    Attempt("form", UPLOAD),
    Attempt("beacon", UPLOAD),
    Attempt("fetch", UPLOAD),
    Attempt(
        "fetch of JSON", "/ajax-api/2.0/mlflow/experiments/create", '{"name": "NEW"}', PREFLIGHT
    ),
    Attempt("fetch of JSON", "/api/2.0/mlflow/runs/set-tag", TAG, PREFLIGHT),
    Attempt(
        "fetch of JSON", "/api/2.0/mlflow/registered-models/create", '{"name": "NEW"}', PREFLIGHT
    ),
    Attempt("PUT", f"{ARTIFACTS}/EXPERIMENT/RUN/artifacts/NEW", refused=PREFLIGHT),
]
WITHOUT = Attempt("fetch without credentials", UPLOAD, refused=("POST", 401))


@pytest.fixture(scope="module")
def careless(
    playwright: Playwright, chromium: str, web: Web, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrowserContext]:
    """A browser that attaches saved credentials to every request, whichever site makes it."""
    profile = tmp_path_factory.mktemp("profile")
    (profile / "Default").mkdir()
    (profile / "Default" / "Preferences").write_text(
        json.dumps(
            {
                "auth": {"globally_scoped_http_auth_cache_enabled": True},
                "profile": {"cookie_controls_mode": 0, "block_third_party_cookies": False},
            }
        )
    )
    with playwright.chromium.launch_persistent_context(
        profile, executable_path=chromium, args=web.flags, ignore_https_errors=True
    ) as context:
        yield context


@pytest.fixture
def visitor(careless: BrowserContext) -> Iterator[Page]:
    page = careless.new_page()
    yield page
    page.close()


@dataclass(frozen=True)
class Server:
    """The server's data and its log of requests, read without a browser."""

    stack: Stack
    authorization: str

    def call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.stack.port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": self.authorization, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def everything(self, seeded: Seeded) -> dict[str, Any]:
        api = "/api/2.0/mlflow"
        everything = {"experiments": self.call(f"{api}/experiments/search?max_results=1000")}
        everything["runs"] = self.call(
            f"{api}/runs/search",
            {"experiment_ids": [seeded.experiment], "run_view_type": "ALL", "max_results": 1000},
        )
        everything["models"] = self.call(f"{api}/registered-models/search?max_results=1000")
        everything["artifacts"] = self.call(f"{api}/artifacts/list?run_id={seeded.best}")
        return everything

    @property
    def log(self) -> Path:
        return self.stack.folder / "log" / "server.log"

    def logged(self) -> int:
        return len(self._lines())

    def _lines(self) -> bytes:
        """Returns the log up to its last complete line."""
        log = self.log.read_bytes()
        return log[: log.rfind(b"\n") + 1]

    def answers(self, path: str, *, since: int) -> list[tuple[str, int]]:
        """Returns method and status of each request for the path; waits for the first request.

        A 403 that doesn't come from the gate counts as 0.
        """
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            lines = self._lines()[since:].splitlines()
            requests = [json.loads(line).get("httpRequest") for line in lines if b"http" in line]
            if found := [
                (request["requestMethod"], 0 if _is_foreign(request) else request["status"])
                for request in requests
                if request and request["requestUrl"] == path
            ]:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{path} was not requested")


def _is_foreign(request: dict[str, Any]) -> bool:
    return request["status"] == 403 and request["responseSize"] != str(len(CROSS_SITE))


@pytest.fixture
def server(stack: Stack, credentials: tuple[str, str]) -> Server:
    token = base64.b64encode(":".join(credentials).encode()).decode()
    return Server(stack, f"Basic {token}")


def address(web: Web, name: str) -> str:
    return name.format(local=web.local, other_port=web.other_port)


@pytest.mark.parametrize(("site", "target"), SITES)
def test_another_sites_page_changes_nothing(
    visitor: Page,
    web: Web,
    server: Server,
    seeded: Seeded,
    credentials: tuple[str, str],
    site: str,
    target: str,
) -> None:
    origin = address(web, target)
    assert log_in(visitor, f"{origin}/version", credentials).status == 200
    before = server.everything(seeded)
    for attempt in (*ATTEMPTS, WITHOUT):
        # Each attempt in a separate tab.
        with visitor.context.new_page() as page:
            page.goto(address(web, site))
            start = server.logged()
            path = attempt.make(page, origin, seeded)
            assert server.answers(path, since=start) == [attempt.refused], attempt
    assert server.everything(seeded) == before


@pytest.mark.parametrize("target", [f"https://{EXPORTED}", f"https://{CUSTOM}", LOCAL])
def test_the_same_requests_from_the_servers_page_work(
    visitor: Page,
    web: Web,
    server: Server,
    seeded: Seeded,
    credentials: tuple[str, str],
    target: str,
) -> None:
    origin = address(web, target)
    log_in(visitor, f"{origin}{OWN_PAGE}", credentials)
    before = server.everything(seeded)
    for attempt in ATTEMPTS:
        start = server.logged()
        path = attempt.make(visitor, origin, seeded)
        ((_, status),) = server.answers(path, since=start)
        assert status == 200, attempt
        after = server.everything(seeded)
        assert after != before, attempt
        before = after
        if attempt.means == "form":  # the page is now the response
            visitor.goto(f"{origin}{OWN_PAGE}")


@pytest.mark.parametrize(("site", "target"), SITES)
def test_another_sites_page_can_embed_nothing_but_may_link(
    visitor: Page,
    web: Web,
    server: Server,
    seeded: Seeded,
    credentials: tuple[str, str],
    site: str,
    target: str,
) -> None:
    origin = address(web, target)
    log_in(visitor, f"{origin}/", credentials)
    script = visitor.locator("script[src]").first.get_attribute("src")
    assert script is not None
    shown = {
        "img": f"/get-artifact?run_uuid={seeded.best}&path=plots/confusion.png",
        # A new address each time, so that the browser doesn't use its cache.
        "script": f"/{script.removeprefix('./').removeprefix('/')}?{next(fresh)}",
    }
    visitor.goto(address(web, site))
    for tag, path in shown.items():
        start = server.logged()
        assert visitor.evaluate(SHOWING, [tag, origin + path]) is False
        assert server.answers(path.partition("?")[0], since=start) == [("GET", 403)]
    assert framed(visitor, f"{origin}/version").startswith("chrome-error:")

    visitor.evaluate("url => { location.href = url }", f"{origin}{OWN_PAGE}")
    visitor.wait_for_url(f"{origin}{OWN_PAGE}")
    assert "short_name" in visitor.locator("body").inner_text()
    for tag, path in shown.items():
        assert visitor.evaluate(SHOWING, [tag, origin + path]) is True
    assert framed(visitor, f"{origin}/version") == f"{origin}/version"


def framed(page: Page, url: str) -> str:
    """Returns the address of a frame after the page has loaded the URL into it."""
    page.evaluate(SHOWING, ["iframe", url])
    frame, deadline = page.frames[-1], time.monotonic() + 10
    # Playwright learns the address with a delay.
    while frame.url in ("", "about:blank") and time.monotonic() < deadline:
        page.wait_for_timeout(20)
    return frame.url
