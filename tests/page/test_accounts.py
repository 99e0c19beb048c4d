"""People with accounts in MLflow's page: what each sees, sharing, and the administrator's page."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.local.conftest import Stack
from tests.page.conftest import VIEWPORT, PageStack, watched, without_hints

ADA, BEN, CLEO = "ada@example.com", "ben@example.com", "cleo@example.com"
USERS, GRANTS = "/ajax-api/2.0/mlflow/users", "/ajax-api/3.0/mlflow/users/permissions"
EXPERIMENTS = "/ajax-api/2.0/mlflow/experiments"
# The administrator's dialogs ask for workspaces, which stock MLflow doesn't have either by default.
NO_WORKSPACES = "/mlflow/workspaces>"


def password_of(name: str) -> str:
    return f"canary-password-of-{name}"


class Team:
    """A stack with accounts, where nobody sees anything that others have created."""

    def __init__(self, stack: Stack, browser: Browser) -> None:
        environment = stack.environment()
        self._address = f"http://127.0.0.1:{stack.port}"
        self._browser = browser
        self.admin = environment["MLFLOW_TRACKING_USERNAME"]
        self._password = environment["MLFLOW_TRACKING_PASSWORD"]

    @contextmanager
    def page(self, name: str) -> Iterator[Page]:
        """Yield a page of this person; fail if its console has errors at the end."""
        password = self._password if name == self.admin else password_of(name)
        login: Any = {"username": name, "password": password}
        with self._browser.new_context(http_credentials=login, viewport=VIEWPORT) as context:
            context.set_default_timeout(15_000)
            refused = "the server responded with a status of 403"
            with watched(context, NO_WORKSPACES, refused):
                page = without_hints(context)
                page.goto(f"{self._address}/#/experiments")
                yield page


def sent(page: Page, method: str, path: str, **fields: object) -> tuple[int, str]:
    """Send a request as the page's own scripts do. Returns the status and the text."""
    given: dict[str, Any] = {"method": method}
    if method != "GET":
        given |= {"body": json.dumps(fields), "headers": {"Content-Type": "application/json"}}
    script = """async ([path, given]) => {
        const response = await fetch(path, given);
        return [response.status, await response.text()];
    }"""
    status, found = page.evaluate(script, [path, given])
    return status, found


@pytest.fixture(scope="module")
def team(browser: Browser) -> Iterator[Team]:
    config = ("accounts=true", "accountsDefaultPermission=NO_PERMISSIONS")
    with PageStack.temporary(config=config) as stack:
        team = Team(stack, browser)
        with team.page(team.admin) as admin:
            for name in (ADA, BEN):
                new = {"username": name, "password": password_of(name)}
                assert sent(admin, "POST", f"{USERS}/create", **new)[0] == 200
        yield team


def test_each_person_sees_their_own_and_what_is_shared(team: Team) -> None:
    with team.page(ADA) as ada, team.page(BEN) as ben:
        ids = [
            json.loads(sent(page, "POST", f"{EXPERIMENTS}/create", name=name)[1])["experiment_id"]
            for page, name in ((ada, "of-ada"), (ben, "of-ben"))
        ]
        shared = {"username": BEN, "resource_type": "experiment", "resource_id": ids[0]}
        theirs = f"{EXPERIMENTS}/get?experiment_id={ids[0]}"
        for action, permission, count, status in (
            (None, None, 0, 403),
            ("grant", "READ", 1, 200),
            ("revoke", None, 0, 403),
        ):
            if action:
                changed = shared | ({"permission": permission} if permission else {})
                assert sent(ada, "POST", f"{GRANTS}/{action}", **changed)[0] == 200
            ben.reload()
            expect(ben.get_by_role("link", name="of-ben")).to_be_visible()
            expect(ben.get_by_role("link", name="of-ada")).to_have_count(count)
            assert sent(ben, "GET", theirs)[0] == status
            assert sent(ben, "POST", f"{EXPERIMENTS}/delete", experiment_id=ids[0])[0] == 403


def test_the_administrator_creates_a_user_and_a_role(team: Team) -> None:
    with team.page(team.admin) as admin:
        sent(admin, "POST", f"{EXPERIMENTS}/create", name="of-the-team")
        admin.goto(admin.url.replace("experiments", "admin"))
        admin.get_by_role("button", name="Create User").click()
        dialog = admin.get_by_role("dialog")
        dialog.get_by_placeholder("Enter username").fill(CLEO)
        dialog.get_by_placeholder("Enter password").fill(password_of(CLEO))
        dialog.get_by_role("button", name="Create user", exact=True).click()
        expect(admin.get_by_role("link", name=CLEO)).to_be_visible()
        with team.page(CLEO) as cleo:
            expect(cleo.get_by_role("button", name="Create", exact=True)).to_be_visible()
            expect(cleo.get_by_role("link", name="of-the-team")).to_have_count(0)

        admin.get_by_role("tab", name="Roles").click()
        admin.get_by_role("button", name="Create Role").click()
        dialog.get_by_placeholder("Enter role name").fill("forecasting")
        # The form's defaults are to read all experiments.
        dialog.get_by_role("button", name="Permissions").click()
        dialog.get_by_role("button", name="Add", exact=True).click()
        dialog.get_by_role("button", name="Assign users").click()
        dialog.get_by_role("combobox").last.click()
        admin.get_by_role("option", name=CLEO).click()
        dialog.get_by_role("button", name="Create role").click()
        expect(admin.get_by_role("link", name="forecasting")).to_be_visible()
        with team.page(CLEO) as cleo:
            expect(cleo.get_by_role("link", name="of-the-team")).to_be_visible()


def test_others_cannot_use_the_administrators_page(team: Team) -> None:
    with team.page(BEN) as ben:
        ben.goto(ben.url.replace("experiments", "admin"))
        expect(ben.get_by_role("link", name=ADA)).to_be_visible()
        expect(ben.get_by_role("button", name="Create User")).to_have_count(0)
        new = {"username": "dan@example.com", "password": password_of("dan")}
        promoted = {"username": BEN, "is_admin": True}
        for method, path, fields in (
            ("POST", f"{USERS}/create", new),
            ("PATCH", f"{USERS}/update-admin", promoted),
            ("DELETE", f"{USERS}/delete", {"username": ADA}),
            ("POST", "/ajax-api/3.0/mlflow/roles/create", {"name": "r", "workspace": "default"}),
        ):
            assert sent(ben, method, path, **fields)[0] == 403, path
