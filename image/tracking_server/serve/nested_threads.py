"""Threads of the event loop for work that calls this server back and waits for the response.

MLflow's guardrails do this in the event loop's own threads. A call back needs such a thread too, so
if all threads waited for calls back, none of them would ever finish.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from tracking_server.gate.callbacks import CALL_DEPTH, DEEPEST

THREADS = 8
"""Threads for each depth of calls back."""

P = ParamSpec("P")
R = TypeVar("R")


class NestedThreads(ThreadPoolExecutor):
    """Runs a call back's work in other threads than those that wait for the call back."""

    def __init__(self) -> None:
        super().__init__(THREADS, thread_name_prefix="loop")
        self._deeper = [
            ThreadPoolExecutor(THREADS, thread_name_prefix=f"loop-{depth + 1}")
            for depth in range(DEEPEST)
        ]

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        if depth := CALL_DEPTH.get():
            return self._deeper[depth - 1].submit(fn, *args, **kwargs)
        return super().submit(fn, *args, **kwargs)
