"""The package's own exceptions."""


class BootError(Exception):
    """The server can't start.

    Its text is one line for readers of the log: what is wrong and how to fix it,
    never a secret's value.
    """


class BucketError(Exception):
    """The bucket refuses a request with this status, or doesn't respond, which counts as 503."""

    def __init__(self, message: str, *, status: int = 503) -> None:
        super().__init__(message)
        self.status = status

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later.

        https://cloud.google.com/storage/docs/retry-strategy#retryable
        """
        return self.status in (408, 429, 500, 502, 503, 504)
