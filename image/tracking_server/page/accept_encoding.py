"""Chooses a response's content coding by the Accept-Encoding header.

https://www.rfc-editor.org/rfc/rfc9110#field.accept-encoding
"""

from collections.abc import Iterable, Sequence

from tracking_server.request_headers import combined

IDENTITY = "identity"


def chosen(headers: Iterable[tuple[bytes, bytes]], available: Sequence[str]) -> str:
    """Returns the coding that a request prefers; of several, the first in `available`.

    The last in `available` is chosen if the request accepts none.
    """
    weights = _weights(combined(headers, b"accept-encoding").lower())
    # max() returns the first of several.
    return max(
        (coding for coding in available if _weight(coding, weights) > 0),
        key=lambda coding: _weight(coding, weights),
        default=available[-1],
    )


def _weight(coding: str, weights: dict[str, float]) -> float:
    if coding == IDENTITY:
        # Acceptable unless excluded, and preferred only over what is excluded.
        return weights.get(coding, 0.0001 if weights.get("*", 1) else 0)
    return weights.get(coding, weights.get("*", 0))


def _weights(header: str) -> dict[str, float]:
    weights = {}
    for part in header.split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        if coding:
            weights[coding] = _quality(parameters)
    return weights


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return 0
            return quality if 0 <= quality <= 1 else 0
    return 1
