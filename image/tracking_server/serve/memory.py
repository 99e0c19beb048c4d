"""Returns freed memory to the system, and divides memory among the data held for callers."""

import ctypes
from contextlib import suppress
from dataclasses import dataclass

LARGE = 1024 * 1024
"""Size in bytes from which a block is allocated separately and returned when it is freed."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def give_back_large_blocks() -> None:
    """Keep glibc from raising its thresholds, which it does whenever a large block is freed.

    With raised thresholds it keeps up to 64 MiB for each thread. All threads share one heap,
    because separate ones keep what is freed in them: under the tests' attacks, the process needs
    400 MiB instead of 510. https://man7.org/linux/man-pages/man3/mallopt.3.html
    Other C libraries don't have this setting.
    """
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, LARGE)
        library.mallopt(_TRIM_THRESHOLD, LARGE)
        library.mallopt(_ARENA_MAX, 1)


MIB = 1024 * 1024

AT_REST = 220 * MIB
"""Memory of a server that has been in use for a while."""

FOR_BODIES = 100 * MIB
"""Memory for the largest request bodies; `body_limits` limits them."""

FOR_TRANSFERS = 64 * MIB
"""Memory that uploads and downloads share, which `uploads` and `transfers` limit. Each upload may
hold a little in addition."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Bytes that may be held at a time for responses of the database and of model providers."""

    answers: int
    viewers_answers: int
    providers: int


def shares(memory: int, processes: int) -> Shares:
    """Divide an instance's memory among the kinds of data that callers can make a process hold.

    With 1 GiB the user's share holds a page of 10,000 runs with 20 values each; see
    `result_limits.ROW`.
    """
    free = memory // processes - AT_REST - FOR_BODIES - FOR_TRANSFERS
    sixteenth = max(free, 64 * MIB) // 16
    return Shares(
        answers=11 * sixteenth,
        viewers_answers=3 * sixteenth,
        providers=2 * sixteenth,
    )
