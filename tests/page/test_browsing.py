"""A user's actions in the page, on each address that a service has."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.page.conftest import (
    CUSTOM,
    EXPORTED,
    HASHED,
    Picture,
    Seeded,
    log_in,
    new_context,
    watched,
    watched_page,
    without_hints,
)

BASE = f"https://{EXPORTED}/#"


# Stock MLflow logs it too, in the artifacts section of a comparison of runs.
COMPARING = "Cannot read properties of undefined (reading 'includes')"


@pytest.fixture(scope="module")
def tab(browser: Browser, credentials: tuple[str, str]) -> Iterator[Page]:
    """A page with a logged-in user. Tests share it, because MLflow's page takes seconds to load."""
    with new_context(browser) as context:
        tab = without_hints(context)
        assert log_in(tab, f"https://{EXPORTED}/", credentials).status == 200
        yield tab


@pytest.fixture
def page(request: pytest.FixtureRequest, tab: Page) -> Iterator[Page]:
    """The shared page; its console is checked at the end."""
    marks = request.node.iter_markers("stock_error")
    with watched(tab.context, *(mark.args[0] for mark in marks)):
        yield tab


def test_an_error_in_the_console_fails_the_test(
    context: BrowserContext, credentials: tuple[str, str]
) -> None:
    """Even an error that stock MLflow logs too, if it appears on another page."""

    def visit() -> None:
        with watched_page(context) as page:
            log_in(page, f"https://{EXPORTED}/", credentials)
            page.evaluate("error => console.error('TypeError: ' + error)", COMPARING)

    with pytest.raises(AssertionError, match=re.escape(COMPARING)):
        visit()


def test_wrong_password_cancel_and_the_right_one(
    context: BrowserContext, credentials: tuple[str, str]
) -> None:
    user, password = credentials
    # The browser logs its own error for each refused request; no other error is allowed.
    said = "Failed to load resource: the server responded with a status of 401 ()"
    refused = [f"{said} <https://{EXPORTED}/{path}>" for path in ("", "favicon.ico")]
    with watched_page(context, *refused) as page:
        for answers in ([], [(user, "wrong")], [("wrong", password), (user, "")]):
            assert log_in(page, f"https://{EXPORTED}/", *answers).status == 401
            expect(page.locator("body")).to_contain_text("No username and password were given")
            expect(page.locator("#root")).to_have_count(0)
        assert log_in(page, f"https://{EXPORTED}/", (user, "wrong"), credentials).status == 200
        expect(page.get_by_role("link", name="Experiments", exact=True)).to_be_visible()
        # No more prompts: the browser has the credentials.
        assert log_in(page, f"https://{EXPORTED}/").status == 200


def test_experiments_and_the_charts_of_their_traces(
    page: Page, seeded: Seeded, keep: Picture
) -> None:
    page.goto(f"{BASE}/experiments")
    for name in ("demand-by-store", "image-quality", "support-answers"):
        expect(page.get_by_role("link", name=name)).to_be_visible()
    keep(page, "experiments")
    page.get_by_role("link", name="churn-forecast").click()
    # The charts use grouped queries, which PostgreSQL only accepts from a configured driver.
    expect(page.get_by_text(re.compile(r"AVG \([0-9.]+ms\)"))).to_be_visible()
    expect(page.get_by_text("Overall error rate: 0.0%")).to_be_visible()
    keep(page, "overview")


def test_a_run_with_charts(page: Page, seeded: Seeded, keep: Picture) -> None:
    page.goto(f"{BASE}/experiments/{seeded.experiment}/runs/{seeded.best}")
    expect(page.get_by_role("row", name=re.compile("learning_rate 0.03"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile(r"accuracy 0\.9"))).to_be_visible()
    page.get_by_role("tab", name="Model metrics").click()
    wait_for_lines(page, charts=2, lines=1)
    keep(page, "run")
    page.goto(f"{BASE}/experiments/{seeded.experiment}/runs?compareRunsMode=CHART")
    wait_for_lines(page, charts=2, lines=4)
    keep(page, "charts")


@pytest.mark.stock_error(COMPARING)
def test_runs_compared(page: Page, seeded: Seeded, keep: Picture) -> None:
    page.goto(f"{BASE}/experiments/{seeded.experiment}/runs")
    for name in ("rate-0.01-depth-2", "rate-0.03-depth-4"):
        row_of(page, name).get_by_role("checkbox", name=re.compile("toggle row")).click()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="Comparing 2 Runs")).to_be_visible()
    expect(
        page.get_by_role("row", name=re.compile("learning_rate 0.0[13] 0.0[13]"))
    ).to_be_visible()
    expect(page.locator(".parcoords .parcoords-pane, .js-plotly-plot").first).to_be_visible()
    keep(page, "compared")


def test_artifacts_previewed_and_downloaded(
    page: Page, seeded: Seeded, tmp_path: Path, keep: Picture
) -> None:
    page.goto(f"{BASE}/experiments/{seeded.experiment}/runs/{seeded.best}/artifacts")
    page.get_by_text("plots", exact=True).click()
    page.get_by_text("confusion.png", exact=True).click()
    picture = page.locator("img[src^=blob]").first
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") == 400
    keep(page, "artifact")
    page.get_by_text("tables", exact=True).click()
    page.get_by_text("stores.csv", exact=True).click()
    expect(page.get_by_role("row", name="Örebro 0.07")).to_be_visible()
    page.get_by_text("notes.txt").click()
    expect(page.locator("code")).to_have_text(re.compile("Every store that opened in May"))
    with page.expect_download() as downloading:
        page.locator("[data-component-id*='components_artifactview.tsx']").click()
    assert downloading.value.suggested_filename == "notes.txt"
    downloading.value.save_as(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "Every store that opened in May is left out.\n"


def test_a_model_registered_and_given_an_alias(page: Page, seeded: Seeded, keep: Picture) -> None:
    page.goto(f"{BASE}/experiments/{seeded.experiment}/models/{seeded.model}")
    page.get_by_role("button", name="Register model").click()
    dialog = page.get_by_role("dialog", name="Register model")
    dialog.get_by_role("combobox").click()
    page.get_by_text("Create New Model", exact=True).click()
    dialog.get_by_placeholder("Input a model name").fill("churn")
    dialog.get_by_role("button", name="Register").click()
    expect(dialog).to_be_hidden()
    page.goto(f"{BASE}/models/churn/versions/1")
    page.get_by_role("button", name="Add", exact=True).click()
    dialog = page.get_by_role("dialog", name="Add/Edit alias")
    dialog.get_by_role("combobox").fill("champion")
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Save aliases").click()
    expect(dialog).to_be_hidden()
    page.goto(f"{BASE}/models")
    row = page.get_by_role("row", name=re.compile("churn"))
    expect(row).to_contain_text(re.compile("champion.*Version 1"))
    keep(page, "models")


def test_traces_shown(page: Page, seeded: Seeded, keep: Picture) -> None:
    page.goto(f"{BASE}/experiments/{seeded.experiment}/traces")
    page.get_by_text("Will Bern churn?").first.click()
    trace = page.get_by_role("dialog")
    expect(trace).to_contain_text("Not yet: Will Bern churn?")
    trace.get_by_text("look up").click()
    expect(trace).to_contain_text("documents")
    keep(page, "trace")


@pytest.mark.parametrize("host", [HASHED, CUSTOM])
def test_a_note_edited(
    context: BrowserContext, credentials: tuple[str, str], seeded: Seeded, host: str
) -> None:
    """The page's writes have an Origin header. The other tests write at the exported address."""
    address = f"https://{host}/#/experiments/{seeded.experiment}/runs/{seeded.best}"
    with watched_page(context) as page:
        log_in(page, f"https://{host}/", credentials)
        page.goto(address)
        page.get_by_role("button", name="Edit description").click()
        page.locator("textarea").fill(f"Written at {host}")
        page.get_by_role("button", name="Save").click()
        page.get_by_role("button", name="Save").wait_for(state="hidden")
        page.reload()
        expect(page.get_by_text(f"Written at {host}")).to_be_visible()


def test_a_run_deleted_and_restored(page: Page, seeded: Seeded) -> None:
    runs, name = f"{BASE}/experiments/{seeded.experiment}/runs", "rate-0.01-depth-4"
    for state, button, confirmation in (
        ("Active", "Delete", "Delete selected"),
        ("Deleted", "Restore", "Restore"),
    ):
        page.goto(f"{runs}?lifecycleFilter={state}")
        row_of(page, name).get_by_role("checkbox", name=re.compile("toggle row")).click()
        page.get_by_role("button", name=button).click()
        page.get_by_role("dialog").get_by_role("button", name=confirmation).click()
        expect(page.get_by_role("link", name=name)).to_have_count(0)
    page.goto(f"{runs}?lifecycleFilter=Active")
    page.reload()
    expect(page.get_by_role("link", name=name)).to_be_visible()


def test_the_viewer_sees_everything_and_cannot_write(
    context: BrowserContext, viewer: tuple[str, str], seeded: Seeded
) -> None:
    """The console has no error either, until the viewer tries to write."""
    run = f"{BASE}/experiments/{seeded.experiment}/runs/{seeded.best}"
    with watched_page(context) as page:
        assert log_in(page, f"https://{EXPORTED}/", viewer).status == 200
        page.goto(f"{BASE}/experiments")
        page.get_by_role("link", name="churn-forecast").click()
        expect(page.get_by_text("Overall error rate: 0.0%")).to_be_visible()
        page.goto(f"{BASE}/experiments/{seeded.experiment}/traces")
        expect(page.get_by_text("Will Bern churn?").first).to_be_visible()
        page.goto(f"{BASE}/experiments/{seeded.experiment}/runs?compareRunsMode=CHART")
        wait_for_lines(page, charts=2, lines=4)
        page.goto(f"{run}/artifacts")
        page.get_by_text("notes.txt").click()
        expect(page.locator("code")).to_have_text(re.compile("Every store that opened in May"))
    page = context.new_page()
    page.goto(run)
    page.get_by_role("button", name="Edit description").click()
    page.locator("textarea").fill("Written by the viewer")
    with page.expect_response("**/runs/set-tag") as refused:
        page.get_by_role("button", name="Save").click()
    assert refused.value.status == 403
    page.reload()
    expect(page.get_by_role("button", name="Edit description")).to_be_visible()
    expect(page.get_by_text("Written by the viewer")).to_have_count(0)


def row_of(page: Page, run: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=run))


def wait_for_lines(page: Page, *, charts: int, lines: int) -> None:
    """Wait until each chart has the lines of this many runs with all 60 steps."""
    page.wait_for_function(
        """([charts, lines]) => {
            const drawn = [...document.querySelectorAll('.js-plotly-plot')].map(
                chart => chart.data.filter(line => line.y.length === 60).map(line => line.uuid)
            );
            return drawn.length === charts && drawn.every(ids => new Set(ids).size === lines);
        }""",
        arg=[charts, lines],
    )
