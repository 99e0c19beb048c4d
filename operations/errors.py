"""The error that an operation reports instead of a traceback."""

from __future__ import annotations


class OperationError(Exception):
    """Tells the user what was given, what is expected and what to do next."""
