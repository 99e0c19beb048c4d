"""Runs one server process for each CPU, forked from a process that has imported everything.

Python runs one thread of a process at a time. Forked processes share the memory of the imported
modules, and the kernel spreads connections over all processes that listen on the port
(SO_REUSEPORT, which granian sets).
"""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)

_STOP = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1


def run(count: int, serve: Callable[[], int]) -> int:
    """Run `serve` in `count` processes until SIGTERM or SIGINT, and return the exit code.

    If one process exits on its own, all of them stop: Cloud Run then starts another container.
    """
    # Block signals until all processes are started and known.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    running = {_fork(serve) for _ in range(count)}
    log.info("%d processes", count)
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        for process in running:
            # The process may have exited in the meantime.
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)

    for number in _STOP:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
    code = 0
    while running:
        process, status = os.wait()
        if process not in running:
            # As the container's first process, this one inherits orphans.
            continue
        running.discard(process)
        ended = os.waitstatus_to_exitcode(status)
        if not (stopping and ended == -signal.SIGTERM):
            code = code or ended
        if not stopping:
            log.critical("process %d has exited unexpectedly: stopping the others", process)
            code = code or 1
            stop()
    return 0 if code == 0 else 1


def _fork(serve: Callable[[], int]) -> int:
    parent = os.getpid()
    if process := os.fork():
        return process
    code = 1
    try:
        _end_with(parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
        code = serve()
    finally:
        # Skip the parent's exit handlers, which the parent runs itself.
        logging.shutdown()
        os._exit(code)


def _end_with(parent: int) -> None:
    """Receive SIGTERM when the parent is gone, however it ended: prctl(2), only on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
