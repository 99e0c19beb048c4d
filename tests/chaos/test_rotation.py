"""Passwords and the passphrase change while clients log: a rollout as on Cloud Run, and back."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, cycle

import pytest

from tests.chaos.instances import Api, Instance, administrator
from tests.chaos.report import Row, rows
from tests.chaos.rollout import Rollout, rolled_out
from tests.local.test_instances import RoundRobin

CLIENTS = 4
API = "/api/2.0/mlflow"


class Traffic(RoundRobin):
    """Sends all traffic to one container; `move_to` stops the previous one."""

    def __init__(self, first: Instance) -> None:
        super().__init__([first.port])
        self._served = first

    def move_to(self, instance: Instance) -> None:
        self._turns = cycle([instance.port])
        before, self._served = self._served, instance
        time.sleep(0.5)  # requests under way finish first
        before.stop()


class Load:
    """Clients without retries, which log numbered metrics and record every response."""

    def __init__(self, api: Api) -> None:
        self._api = api
        made = api("POST", f"{API}/runs/create", {"experiment_id": "0", "start_time": 1})
        assert made[0] == 200, made
        self.run = made[1]["run"]["info"]["run_id"]
        self.acknowledged: list[int] = []
        self.answers: Counter[int] = Counter()
        self._numbers, self._done = count(), threading.Event()

    def _log(self) -> None:
        while not self._done.is_set():
            number = next(self._numbers)
            metric = {"key": "m", "value": number, "timestamp": 1, "step": number}
            status, _ = self._api("POST", f"{API}/runs/log-metric", {"run_id": self.run, **metric})
            self.answers[status] += 1
            if status == 200:
                self.acknowledged.append(number)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._log) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._done.set()
            for thread in threads:
                thread.join()

    def lost(self, api: Api) -> set[int]:
        query = f"run_id={self.run}&metric_key=m&max_results=25000"
        status, found = api("GET", f"{API}/metrics/get-history?{query}")
        assert status == 200, found
        return set(self.acknowledged) - {int(metric["value"]) for metric in found["metrics"]}


@pytest.fixture
def rollout() -> Iterator[Rollout]:
    with rolled_out() as made:
        yield made


def note(tried: str, load: Load, lost: set[int]) -> None:
    failed = {status: times for status, times in load.answers.items() if status != 200}
    rows.append(
        Row(
            tried=tried,
            acknowledged=len(load.acknowledged),
            refused=sum(failed.values()),
            lost=len(lost),
            answers=", ".join(f"{times} × {status}" for status, times in failed.items()),
        )
    )


def test_changing_the_database_password_fails_no_request(rollout: Rollout) -> None:
    traffic = Traffic(rollout.instance(0))
    with traffic.serving() as address:
        api = Api(address, rollout.credentials())
        load = Load(api)
        with load.running():
            for version in (2, 3):
                time.sleep(1)
                rollout.up(databasePasswordVersion=version)
                # The old revision still serves, and may start another container.
                traffic.move_to(rollout.instance(version - 2))
                time.sleep(1)
                traffic.move_to(rollout.instance(version - 1))
            time.sleep(1)
            # Roll back by one revision.
            traffic.move_to(rollout.instance(1))
            time.sleep(1)
        lost = load.lost(api)
    note("database password changed twice and rolled back", load, lost)
    assert load.answers.keys() == {200}
    assert not lost
    with administrator(rollout.stack) as connection:
        owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        assert connection.run(owners) == [["cloudsqlsuperuser"]]
    # After two changes, the first password isn't valid any more.
    refused = Instance(rollout.revisions[0], rollout.stack.folder)
    assert "refuses the user's password" in refused.refused()


def test_the_tracking_password_changes_when_the_traffic_moves(rollout: Rollout) -> None:
    before = rollout.credentials()
    traffic = Traffic(rollout.instance(0))
    with traffic.serving() as address:
        old = Api(address, before)
        load = Load(old)
        with load.running():
            time.sleep(1)
            rollout.up(trackingPasswordVersion=2)
            assert rollout.credentials() != before
            new = Api(address, rollout.credentials())
            assert load.answers.keys() == {200}
            traffic.move_to(rollout.instance(1))
            assert new("GET", f"{API}/experiments/get?experiment_id=0")[0] == 200
            time.sleep(0.5)
        lost = load.lost(new)
        note("tracking password changed", load, lost)
        # Refused like any wrong password; no other response is seen.
        assert {200, 401} <= load.answers.keys() <= {200, 401, 429}
        assert not lost
        traffic.move_to(rollout.instance(0))
        assert old("GET", f"{API}/experiments/get?experiment_id=0")[0] == 200


def test_the_passphrase_changes_and_what_it_encrypts_stays_readable(rollout: Rollout) -> None:
    traffic = Traffic(rollout.instance(0))
    with traffic.serving() as address:
        api = Api(address, rollout.credentials())
        hook = {
            "name": "told",
            "url": "https://8.8.8.8/hook",
            "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}],
            "secret": "a shared secret",
        }
        assert api("POST", f"{API}/webhooks", hook)[0] == 200
        key = {"secret_name": "k", "secret_value": {"api_key": "sk-123"}, "provider": "openai"}
        assert api("POST", "/api/3.0/mlflow/gateway/secrets/create", key)[0] == 200
        load = Load(api)
        with load.running():
            for revision, version in ((1, 2), (2, 3)):
                rollout.up(encryptionKeyVersion=version)
                traffic.move_to(rollout.instance(revision))
                assert readable(rollout, api) == version
            # Roll back by two revisions.
            traffic.move_to(rollout.instance(0))
            assert readable(rollout, api) == 1
        lost = load.lost(api)
    note("passphrase changed twice and rolled back", load, lost)
    assert load.answers.keys() == {200}
    assert not lost


def readable(rollout: Rollout, api: Api) -> int:
    """Returns the key version of the gateway's secret, after reading the webhook's secret too."""
    status, found = api("GET", f"{API}/webhooks")
    assert status == 200, found
    assert [hook["name"] for hook in found["webhooks"]] == ["told"]
    with administrator(rollout.stack) as connection:
        [[version]] = connection.run("SELECT kek_version FROM secrets")
    return int(version)
