"""What an operation says instead of a traceback."""

from __future__ import annotations


class OperationError(Exception):
    """What was given, what is wanted and what to do next, for the person at the terminal."""
