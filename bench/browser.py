"""Visits pages in Chromium on an emulated line; run by page.py in the environment of tests/page.

    browser.py CHROMIUM

Reads {"address", "username", "password", "visits": [{"name", "path", "shown"}]} as JSON from stdin.
Each visit opens a new page of one browser, whose cache is empty at first. Prints for each the
seconds until `shown`, a function for the browser, returns true, and the bytes that were received.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import BrowserContext, Page, sync_playwright

MBIT, LATENCY = 10, 40
"""The line: megabits a second in each direction, and milliseconds to the server and back."""

PATIENCE = 60_000
"""Milliseconds until a page is shown."""

QUIET = 1.0
"""Seconds without a request, after which a page is complete."""

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
VIEWPORT = {"width": 1400, "height": 850}


class Line:
    """Slows a page's requests down, and counts the bytes that it receives."""

    def __init__(self, page: Page) -> None:
        session = page.context.new_cdp_session(page)
        self._static: dict[str, bool] = {}
        self.total = self.static = 0
        self.used = time.monotonic()
        session.on("Network.requestWillBeSent", self._begin)
        session.on("Network.loadingFinished", self._end)
        session.send("Network.enable")
        session.send(
            "Network.emulateNetworkConditions",
            {
                "offline": False,
                "latency": LATENCY,
                "downloadThroughput": MBIT * 1e6 / 8,
                "uploadThroughput": MBIT * 1e6 / 8,
            },
        )

    def _begin(self, event: dict[str, Any]) -> None:
        self._static[event["requestId"]] = "/static-files/" in event["request"]["url"]
        self.used = time.monotonic()

    def _end(self, event: dict[str, Any]) -> None:
        self.total += event["encodedDataLength"]
        self.static += event["encodedDataLength"] * self._static.get(event["requestId"], False)
        self.used = time.monotonic()


@contextmanager
def browser() -> Iterator[BrowserContext]:
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder, executable_path=sys.argv[1], args=FLAGS, viewport=VIEWPORT
        )
        context.set_default_timeout(PATIENCE)
        yield context
        context.close()


def log_in(context: BrowserContext, address: str, username: str, password: str) -> None:
    """Answer the browser's prompt at an address without static files."""
    page = context.new_page()
    session = context.new_cdp_session(page)
    answer = {"response": "ProvideCredentials", "username": username, "password": password}

    def fill(event: dict[str, Any]) -> None:
        wanted = {"requestId": event["requestId"], "authChallengeResponse": answer}
        session.send("Fetch.continueWithAuth", wanted)

    def go_on(event: dict[str, Any]) -> None:
        session.send("Fetch.continueRequest", {"requestId": event["requestId"]})

    session.on("Fetch.authRequired", fill)
    session.on("Fetch.requestPaused", go_on)
    session.send("Fetch.enable", {"handleAuthRequests": True})
    response = page.goto(f"{address}/version")
    assert response is not None
    assert response.ok
    # Interception would switch the browser's cache off.
    session.detach()
    page.close()


def visit(context: BrowserContext, address: str, wanted: dict[str, str]) -> dict[str, Any]:
    page = context.new_page()
    line = Line(page)
    started = time.perf_counter()
    page.goto(f"{address}/#{wanted['path']}", wait_until="commit")
    page.wait_for_function(wanted["shown"])
    seconds = time.perf_counter() - started
    while time.monotonic() - line.used < QUIET:
        page.wait_for_timeout(100)
    page.close()
    return {
        "name": wanted["name"],
        "seconds": seconds,
        "bytes": line.total,
        "static": line.static,
    }


def main() -> None:
    given = json.load(sys.stdin)
    # A user's computer has more than one core; the server is idle while the browser works.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    with browser() as context:
        if given["username"]:
            log_in(context, given["address"], given["username"], given["password"])
        print(json.dumps([visit(context, given["address"], one) for one in given["visits"]]))


if __name__ == "__main__":
    main()
