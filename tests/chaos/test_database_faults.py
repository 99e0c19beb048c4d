"""The database fails in different ways while a team logs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pg8000.native
import pytest

from tests.chaos.judgement import nothing_is_lost
from tests.chaos.rig import Rig, Server


@pytest.fixture
def server(rig: Rig) -> Iterator[Server]:
    with rig.server() as server:
        server.start()
        yield server.ready()


def test_the_database_is_restarted(rig: Rig, server: Server) -> None:
    def fault() -> None:
        rig.database.signal(signal.SIGINT)
        rig.database.wait_until_gone()
        time.sleep(2)
        rig.database.start()

    nothing_is_lost("Postgres restarted (fast)", rig.under_load(server, fault))


def test_the_database_is_killed(rig: Rig, server: Server) -> None:
    def fault() -> None:
        for _ in range(2):
            rig.database.signal(signal.SIGKILL)
            rig.database.wait_until_gone()
            time.sleep(1)
            rig.database.start()
            time.sleep(2)

    nothing_is_lost("Postgres killed -9", rig.under_load(server, fault, faults=2))


def test_a_session_is_killed(rig: Rig, server: Server) -> None:
    """Postgres then ends all other sessions and recovers: its shared memory can't be trusted."""

    def fault() -> None:
        for _ in range(3):
            with rig.database.connect() as admin:
                [[number]] = admin.run(
                    "SELECT min(pid) FROM pg_stat_activity WHERE usename = 'mlflow'"
                )
            os.kill(number, signal.SIGKILL)
            time.sleep(3)
            rig.database.wait_until_answers()

    nothing_is_lost("a session killed -9", rig.under_load(server, fault, faults=3))


def test_the_database_has_no_free_connections(rig: Rig, server: Server) -> None:
    def fault() -> None:
        taken: list[pg8000.native.Connection] = []
        with rig.database.connect() as admin:
            # The free connections first, then one for each connection of the server's that ends.
            until = time.monotonic() + 5
            while time.monotonic() < until:
                try:
                    taken.append(rig.database.connect(database="postgres"))
                except pg8000.exceptions.Error:
                    admin.run(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE usename = 'mlflow'"
                    )
        for connection in taken:
            connection.close()

    nothing_is_lost("out of connections", rig.under_load(server, fault))


def test_the_database_fails_over(rig: Rig, server: Server) -> None:
    """Another machine takes over the disk, as in a Cloud SQL instance with two zones.

    https://cloud.google.com/sql/docs/postgres/high-availability
    """
    with TemporaryDirectory(prefix="mlflow-gcp-zone-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        other = Path(folder, "pg")
        other.mkdir()

        def fault() -> None:
            rig.database.signal(signal.SIGKILL)
            rig.database.wait_until_gone()
            time.sleep(2)
            rig.database.start(sockets=other)
            time.sleep(1)
            rig.database.lead_here()

        try:
            nothing_is_lost("failed over", rig.under_load(server, fault))
        finally:
            rig.database.start_afresh()


def test_the_database_is_slow(rig: Rig, server: Server) -> None:
    def fault() -> None:
        rig.database.signal_all(signal.SIGSTOP)
        time.sleep(8)
        rig.database.signal_all(signal.SIGCONT)
        with rig.database.connect() as admin:
            admin.run("BEGIN")
            admin.run("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
            time.sleep(6)
            admin.run("ROLLBACK")

    outcome = rig.under_load(server, fault, seconds=30, faults=2)
    nothing_is_lost("Postgres stopped for 8 s, metrics locked for 6 s", outcome)
    assert outcome.refused == 0


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    with TemporaryDirectory(prefix="mlflow-gcp-disk-", dir="/var/tmp") as folder:
        size = f"size={megabytes}m"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=False, capture_output=True
        )
        if mounted.returncode:
            pytest.skip("needs the right to mount a small disk")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def filled(disk: Path) -> Callable[[], None]:
    """Use up the free space. Returns a function that frees it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return ballast.unlink


def test_the_disk_is_full(rig: Rig, server: Server) -> None:
    home = rig.database.data
    rig.database.signal(signal.SIGINT)
    rig.database.wait_until_gone()
    size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
    with small_disk(megabytes=size // (1 << 20) + 150) as disk:
        data = disk / "data"
        subprocess.run(["cp", "-a", home, data], check=True)
        disk.chmod(0o711)
        rig.database.start(data=data)

        def fault() -> None:
            free = filled(disk)
            try:
                time.sleep(8)
            finally:
                free()
            # A server that couldn't recover has ended; Cloud SQL starts it again.
            if rig.database.is_gone():
                rig.database.start(data=data)

        try:
            nothing_is_lost("the database's disk full", rig.under_load(server, fault))
        finally:
            rig.database.start_afresh()
