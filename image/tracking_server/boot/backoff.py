"""Pauses between attempts during the boot."""

from time import monotonic, sleep


class Backoff:
    """Pauses that double each time, from `first` up to `longest` seconds."""

    def __init__(self, *, first: float, longest: float) -> None:
        self._pause, self._longest = first, longest

    def outlasts(self, until: float) -> bool:
        """Whether the next pause would end after `until`, a time of `time.monotonic`."""
        return monotonic() + self._pause > until

    def wait(self) -> None:
        sleep(self._pause)
        self._pause = min(2 * self._pause, self._longest)
