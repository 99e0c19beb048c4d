"""How the boot waits between two tries of the same thing."""

from time import monotonic, sleep


class Backoff:
    """Pauses in seconds, each twice as long as the one before, up to the longest."""

    def __init__(self, *, first: float, longest: float) -> None:
        self._pause, self._longest = first, longest

    def outlasts(self, until: float) -> bool:
        """Whether the next pause would end after that moment of `time.monotonic`."""
        return monotonic() + self._pause > until

    def wait(self) -> None:
        sleep(self._pause)
        self._pause = min(2 * self._pause, self._longest)
