"""MLflow's pages work under the server's response headers, and reach no other server.

Each page is opened until it shows the given text. The browser reports everything that it blocks.
"""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, expect

from tests.page.conftest import ELSEWHERE, EXPORTED, VIEWPORT, log_in

BASE = f"https://{EXPORTED}"

# Runs in every frame, because a frame that inherits the policy reports to itself.
WATCH = """addEventListener('securitypolicyviolation', event =>
    console.warn('Blocked:', event.effectiveDirective, event.blockedURI))"""

# Requests of MLflow's pages to third parties, which are blocked on purpose.
THIRD_PARTIES = (
    # The map below the shapes of a GeoJSON file.
    r"img-src https://[abc]\.tile\.openstreetmap\.org/",
    # A video on the page of an experiment without traces.
    r"media-src https://mlflow\.org/docs/",
)

E, D, RUN = (
    "/experiments/{experiment}",
    "/experiments/{demo}",
    "/experiments/{experiment}/runs/{run}",
)
BOTH = 'runs=["{run}","{other}"]&experiments=["{experiment}"]'
PLOT = ".js-plotly-plot .plotly"

# Each page, and what it shows when it is complete.
PAGES = {
    "/": "text=Getting Started",
    "/experiments": "role=link[name='everything']",
    f"{E}/overview/usage": "text=Overall error rate",
    f"{D}/overview/quality": ".recharts-surface",
    f"{D}/overview/tool-calls": ".recharts-surface",
    f"{E}/runs": "role=link[name='every kind of file']",
    f"{E}/runs?compareRunsMode=CHART": PLOT,
    f"{E}/runs?compareRunsMode=ARTIFACT": "text=evaluated.json",
    f"{E}/traces": "text=Second?",
    f"{D}/traces": "text=/retrieval issue/",
    f"{E}/traces?selectedEvaluationId={{trace}}": "iframe[title^='PDF Attachment'][src^=blob]",
    f"{E}/chat-sessions": "text=View Sessions in Traces tab",
    f"{E}/chat-sessions/session-1": "text=First?",
    f"{E}/models": "role=link[name='doubler']",
    f"{E}/models/{{model}}": "text={model}",
    f"{E}/models/{{model}}/artifacts": "text=MLmodel",
    f"{E}/models/{{model}}/traces": "text=Manual setup",
    f"{D}/evaluation-runs": "text=trace-level-evaluation",
    f"{D}/datasets": "text=questions",
    f"{D}/judges": "text=/demo|relevance|quality/i",
    f"{D}/review-queue": "text=Demo Response Review",
    f"{D}/prompts": "role=row >> nth=1",
    f"{D}/playground": "text=Load prompt",
    f"{RUN}": "role=link[name='a link']",
    f"{RUN}/model-metrics": PLOT,
    f"{RUN}/system-metrics": "role=tab[name='System metrics']",
    f"{RUN}/traces": "role=tab[name='Traces']",
    f"/compare-runs?{BOTH}": ".js-plotly-plot >> text=loss",
    '/compare-experiments/s?experiments=["{experiment}","{demo}"]': "text=from 2 Experiments",
    f'/metric/loss?{BOTH}&metric="loss"&plot_metric_keys=["loss"]': PLOT,
    "/models": "role=link[name='everything']",
    "/models/everything": "role=link[name=/^Version 2/]",
    "/models/everything/versions/1": "text=Version 1",
    "/prompts": "role=link[name='greeting']",
    "/prompts/greeting": "text=Greet",
    "/gateway": "role=link[name='chat']",
    "/gateway/api-keys": "text=key",
    "/gateway/usage": "text=Usage",
    "/gateway/budgets": "text=/budget/i",
    "/gateway/endpoints/create": "text=/create endpoint/i",
    "/gateway/endpoints/{endpoint}": "text=chat",
    "/mcp-registry": "text=/MCP/",
    "/settings/general": "text=/theme/i",
    "/settings/llm-connections": "text=/connection/i",
    "/settings/webhooks": "text=/webhook/i",
    "/nowhere": "text=/not found/i",
}
# Each artifact, and the element that shows it.
FILES = {
    "picture.png": "img[src^=blob]",
    "picture.jpg": "img[src^=blob]",
    "drawing.svg": "img[src^=blob]",
    "paper.pdf": ".react-pdf__Page__canvas",
    "sound.wav": "audio",
    "report.html": "iframe[src^=blob]",
    "table.csv": "role=row[name='Bern 0.12']",
    "shapes.geojson": ".leaflet-container .leaflet-marker-icon",
    "values.json": "code",
    "notes.md": "text=May",
    "conda.yaml": "code",
    "code.py": "code",
    "plain.txt": "text=Only text.",
    "bytes.bin": "text=/preview/i",
    "evaluated.json": "text=question",
}


@dataclass
class Watched:
    page: Page
    blocked: list[str] = field(default_factory=list)

    def look(self, message: ConsoleMessage) -> None:
        text = message.text
        if text.startswith("Blocked: "):
            self.blocked.append(text.removeprefix("Blocked: "))
        # No script of this test can listen inside a worker.
        elif "Content Security Policy" in text and not message.page:
            self.blocked.append(text)

    def unexpected(self) -> list[str]:
        """Returns what was blocked since the last call, including on the previous page."""
        blocked, self.blocked = self.blocked, []
        return [text for text in blocked if not any(re.match(it, text) for it in THIRD_PARTIES)]


@pytest.fixture(scope="module")
def watched(
    browser: Browser, credentials: tuple[str, str], everything: dict[str, str]
) -> Iterator[Watched]:
    with browser.new_context(ignore_https_errors=True, viewport=VIEWPORT) as context:
        context.set_default_timeout(15_000)
        context.add_init_script(WATCH)
        watched = Watched(context.new_page())
        context.on("console", watched.look)
        log_in(watched.page, BASE, credentials)
        yield watched
        assert watched.unexpected() == []


@pytest.mark.parametrize("path", PAGES)
def test_a_page_works(watched: Watched, everything: dict[str, str], path: str) -> None:
    watched.page.goto(f"{BASE}/#{path.format(**everything)}")
    shown = PAGES[path].replace("{model}", everything["model"])
    expect(watched.page.locator(shown).first).to_be_visible()
    assert watched.unexpected() == []


def open_artifact(watched: Watched, everything: dict[str, str], name: str) -> None:
    artifacts = f"{RUN}/artifacts".format(**everything)
    if artifacts not in watched.page.url:
        watched.page.goto(f"{BASE}/#{artifacts}")
    # Without the mouse: one of MLflow's hints may cover it.
    watched.page.get_by_text(name, exact=True).first.dispatch_event("click")


@pytest.mark.parametrize("name", FILES)
def test_an_artifact_is_shown(watched: Watched, everything: dict[str, str], name: str) -> None:
    open_artifact(watched, everything, name)
    expect(watched.page.locator(FILES[name]).first).to_be_visible()
    assert watched.unexpected() == []


def test_an_html_artifacts_style_is_applied_and_its_scripts_do_not_run(
    watched: Watched, everything: dict[str, str]
) -> None:
    """A frame inherits the page's policy, which allows MLflow's own scripts only."""
    frame = watched.page.frame_locator("iframe[src^=blob]")
    open_artifact(watched, everything, "report.html")
    expect(frame.get_by_role("heading", name="A report")).to_have_css("color", "rgb(0, 128, 128)")
    assert watched.unexpected() == []
    open_artifact(watched, everything, "scripted.html")
    expect(frame.locator("body")).to_have_text(re.compile("^as it is"))
    assert watched.unexpected() == ["script-src-elem inline"]


LOADED = """url => new Promise(resolve => {
    const script = document.createElement('script');
    script.onload = () => resolve(true);
    script.onerror = () => resolve(false);
    script.src = url;
    document.head.append(script);
})"""
ADD = "(tag, set) => document.body.append(Object.assign(document.createElement(tag), set))"
SENT = {
    "fetch": "url => fetch(url, {mode: 'no-cors'})",
    "beacon": "url => navigator.sendBeacon(url, 'text')",
    "img": f"url => ({ADD})('img', {{src: url}})",
    "script": f"url => ({ADD})('script', {{src: url}})",
    "iframe": f"url => ({ADD})('iframe', {{src: url}})",
    "link": f"url => ({ADD})('link', {{rel: 'stylesheet', href: url}})",
}


def test_an_artifact_is_not_loaded_as_a_script(
    watched: Watched, everything: dict[str, str]
) -> None:
    """The policy allows files of this server, and artifacts are among them."""
    page = watched.page
    path = f"get-artifact?run_uuid={everything['run']}&path=script.js"
    assert "marked" in page.evaluate("path => fetch(path).then(answer => answer.text())", path)
    assert page.evaluate(LOADED, path) is False
    assert page.evaluate("() => window.marked") is None
    script = page.locator("script[src*='static-files']").first.get_attribute("src")
    assert page.evaluate(LOADED, f"{script}?again") is True


@pytest.mark.parametrize("means", SENT)
def test_the_page_sends_nothing_to_other_servers(watched: Watched, means: str) -> None:
    url = f"https://{ELSEWHERE}/{means}"
    with suppress(Error):  # fetch raises by itself
        watched.page.evaluate(SENT[means], url)
    deadline = time.monotonic() + 10
    while not watched.blocked and time.monotonic() < deadline:
        watched.page.wait_for_timeout(20)
    [blocked] = watched.unexpected()
    assert blocked.endswith((url, f"https://{ELSEWHERE}/", f"https://{ELSEWHERE}"))
