"""Has the C library give back memory that large requests took."""

import ctypes
from contextlib import suppress

LARGE = 1024 * 1024
"""Bytes of a block that is taken from the system for itself, and given back when it is freed."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def give_back_large_blocks() -> None:
    """Keep glibc from raising its thresholds, as it does whenever a large block is freed.

    It would then keep up to 64 MiB for each thread: https://man7.org/linux/man-pages/man3/mallopt.3.html
    Other C libraries have no such setting.
    """
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, LARGE)
        library.mallopt(_TRIM_THRESHOLD, LARGE)
