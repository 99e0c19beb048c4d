"""A real browser in front of the real stack, under hostnames like those on Google Cloud."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    Response,
    WebError,
    expect,
    sync_playwright,
)

from tests.local.conftest import ROOT, Stack
from tests.page.front import Front

# Playwright's own 5 s are short on two cores that are busy.
expect.set_options(timeout=15_000)

# The service as Cloud Run would name it, from the project that __main__.py declares locally.
EXPORTED = "mlflow-100000000001.us-central1.run.app"
HASHED = "mlflow-x7ab3c9deq-uc.a.run.app"
CUSTOM = "mlflow.example.com"

ELSEWHERE = "elsewhere.example"
# Another customer's service in the same region, and another host of the custom domain's site.
NEIGHBOUR = "theirs-200000000002.us-central1.run.app"
SIBLING = "wiki.example.com"

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--ignore-certificate-errors",
]

# Errors that stock MLflow's pages log too, as seen on `mlflow server` with SQLite.
STOCK_ERRORS = (
    # The page checks whether the Assistant exists; the gate only allows it on localhost.
    "/mlflow/assistant/providers>",
    # The page asks for the current user; only MLflow's own basic-auth app has the route.
    "/ajax-api/2.0/mlflow/users/current",
    # The browser's note that a layout took two rounds: sliding panels, charts.
    "ResizeObserver loop completed with undelivered notifications",
)

Picture = Callable[[Page, str], None]
VIEWPORT = {"width": 1400, "height": 850}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "stock_error(text): an error that stock MLflow's page has too"
    )


class PageStack(Stack):
    """A stack whose commands run in the program's environment instead of these tests' own."""

    def command(self, *arguments: str) -> list[str]:
        return [str(ROOT / ".venvs/program/bin/python"), *super().command(*arguments)[1:]]


@dataclass(frozen=True)
class Seeded:
    """The ids of what seed.py has logged."""

    experiment: str
    best: str
    model: str


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    config = (f'customDomains=["{CUSTOM}"]', "viewerUsername=viewer")
    with PageStack.temporary(config=config) as stack:
        yield stack


@pytest.fixture(scope="session")
def seeded(stack: Stack) -> Seeded:
    ran = stack.client(
        str(Path(__file__).with_name("seed.py")),
        MODEL=str(ROOT / "sample_client" / "doubler.py"),
        MLFLOW_LOGGING_LEVEL="ERROR",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
    )
    assert ran.returncode == 0, ran.stderr
    return Seeded(**json.loads(ran.stdout.splitlines()[-1]))


@pytest.fixture(scope="session")
def everything(stack: Stack) -> dict[str, str]:
    """Returns the ids of what seed_everything.py has logged, by name."""
    ran = stack.client(
        str(Path(__file__).with_name("seed_everything.py")),
        MODEL=str(ROOT / "sample_client" / "doubler.py"),
        MLFLOW_LOGGING_LEVEL="ERROR",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
    )
    assert ran.returncode == 0, ran.stderr
    made: dict[str, str] = json.loads(ran.stdout.splitlines()[-1])
    return made


@pytest.fixture(scope="session")
def credentials(stack: Stack) -> tuple[str, str]:
    env = stack.environment()
    return env["MLFLOW_TRACKING_USERNAME"], env["MLFLOW_TRACKING_PASSWORD"]


@pytest.fixture(scope="session")
def viewer(stack: Stack) -> tuple[str, str]:
    outputs = json.loads((stack.folder / "supervisor.json").read_text())["outputs"]
    return outputs["viewer_username"], outputs["viewer_password"]


@dataclass(frozen=True)
class Web:
    """The addresses that the browser can reach."""

    flags: tuple[str, ...]
    local: str
    other_port: str


@pytest.fixture(scope="session")
def web(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    front = Front(tmp_path_factory.mktemp("front"))
    server, safe = front.serve(stack.port), front.serve_blank_pages(tls=True)
    plain = front.serve_blank_pages(tls=False)
    rules = [
        *(f"MAP {host}:443 127.0.0.1:{server}" for host in (EXPORTED, HASHED, CUSTOM)),
        *(f"MAP {host}:443 127.0.0.1:{safe}" for host in (ELSEWHERE, NEIGHBOUR, SIBLING)),
        f"MAP {ELSEWHERE}:80 127.0.0.1:{plain}",
        # No request leaves this computer.
        "MAP * ~NOTFOUND",
        "EXCLUDE 127.0.0.1",
    ]
    yield Web(
        flags=(*FLAGS, "--host-resolver-rules=" + ",".join(rules)),
        local=f"http://127.0.0.1:{stack.port}",
        other_port=f"http://127.0.0.1:{plain}",
    )
    front.close()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Returns the browser's path. If it is missing, the tests are skipped; in CI, they fail."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    missing = "needs Chromium or Chrome: on Debian `apt install chromium`"
    if "CI" in os.environ:
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def browser(playwright: Playwright, chromium: str, web: Web) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=chromium, args=web.flags)
    yield browser
    browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser without saved credentials."""
    with new_context(browser) as context:
        yield context


@contextmanager
def new_context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context(
        ignore_https_errors=True, viewport=VIEWPORT, accept_downloads=True
    ) as context:
        context.set_default_timeout(15_000)
        yield context


def without_hints(context: BrowserContext) -> Page:
    """Returns a page without MLflow's first-visit hints."""
    page = context.new_page()
    for hint in ("Got it", "Try it now"):
        page.add_locator_handler(page.get_by_role("button", name=hint), lambda hint: hint.click())
    return page


@contextmanager
def watched(context: BrowserContext, *expected: str) -> Iterator[None]:
    """Fail if the console of the context's pages has errors at the end.

    `expected`: texts that mark an error as allowed.
    """
    errors: list[str] = []

    def look(message: ConsoleMessage) -> None:
        text = f"{message.text} <{message.location['url']}>"
        known = any(part in text for part in (*STOCK_ERRORS, *expected))
        if message.type == "error" and not known:
            errors.append(text)

    def fail(error: WebError) -> None:
        errors.append(str(error.error))

    context.on("console", look)
    context.on("weberror", fail)
    yield
    context.remove_listener("console", look)
    context.remove_listener("weberror", fail)
    assert errors == []


@contextmanager
def watched_page(context: BrowserContext, *expected: str) -> Iterator[Page]:
    """Yield a new page without hints; fail if its console has errors at the end."""
    with watched(context, *expected):
        yield without_hints(context)


def log_in(page: Page, address: str, *answers: tuple[str, str]) -> Response:
    """Open a page, fill in each of the browser's prompts in turn, and cancel any further prompt."""
    left = list(answers)
    session = page.context.new_cdp_session(page)

    def fill(event: dict[str, Any]) -> None:
        assert event["authChallenge"]["scheme"] == "basic"
        answer: dict[str, str] = {"response": "CancelAuth"}
        if left:
            username, password = left.pop(0)
            answer = {
                "response": "ProvideCredentials",
                "username": username,
                "password": password,
            }
        session.send(
            "Fetch.continueWithAuth",
            {"requestId": event["requestId"], "authChallengeResponse": answer},
        )

    session.on("Fetch.authRequired", fill)
    session.on(
        "Fetch.requestPaused",
        lambda event: session.send("Fetch.continueRequest", {"requestId": event["requestId"]}),
    )
    only = {"urlPattern": "*", "resourceType": "Document"}
    session.send("Fetch.enable", {"handleAuthRequests": True, "patterns": [only]})
    response = page.goto(address)
    assert response is not None
    # From here on the browser has to use the credentials that it was given.
    session.detach()
    return response


@pytest.fixture(scope="session")
def keep(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    """Save a picture of the page in the folder PAGE_SCREENSHOTS or in pytest's."""
    named = os.environ.get("PAGE_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)

    def picture(page: Page, name: str) -> None:
        page.screenshot(path=folder / f"{name}.png")

    return picture
