"""Checks V4 signed URLs as Cloud Storage does.

https://cloud.google.com/storage/docs/authentication/canonical-requests,
https://cloud.google.com/storage/docs/authentication/signatures,
https://cloud.google.com/storage/docs/xml-api/reference-status
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol
from urllib.parse import parse_qsl, quote, unquote_to_bytes

ALGORITHM = "GOOG4-RSA-SHA256"
LONGEST = 7 * 24 * 3600
_SKEW = timedelta(minutes=15)


class Verifier(Protocol):
    def verify(self, email: str, message: bytes, signature: bytes) -> bool: ...


class BadSignature(Exception):
    """The reason for refusing a URL, in Cloud Storage's words."""

    def __init__(self, status: int, code: str, message: str, details: str) -> None:
        super().__init__(details)
        self.status, self.code, self.message, self.details = status, code, message, details


def _malformed(details: str) -> BadSignature:
    return BadSignature(400, "InvalidArgument", "Invalid argument.", details)


def is_signed(query: Mapping[str, str]) -> bool:
    return any(name.startswith("X-Goog-") for name in query) or "Signature" in query


def signer(
    *, method: str, target: str, headers: Mapping[str, str], keys: Verifier, at: datetime
) -> str:
    """Returns the account that signed the request; `target` is its path and query, as sent."""
    path, _, query_string = target.partition("?")
    pairs = parse_qsl(query_string, keep_blank_values=True)
    query = dict(pairs)
    try:
        algorithm, credential = query["X-Goog-Algorithm"], query["X-Goog-Credential"]
        signed_at = datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        lifetime = int(query["X-Goog-Expires"])
        signature = bytes.fromhex(query["X-Goog-Signature"])
        names = query["X-Goog-SignedHeaders"].split(";")
        email, date, location, service, request_type = credential.split("/")
    except (KeyError, ValueError):
        raise _malformed("A query parameter of the V4 signature is missing or malformed.") from None
    if algorithm != ALGORITHM or (service, request_type) != ("storage", "goog4_request"):
        raise _malformed(f"Only {ALGORITHM} for storage/goog4_request is supported.")
    if date != signed_at.strftime("%Y%m%d") or not 0 < lifetime <= LONGEST:
        raise _malformed("X-Goog-Date or X-Goog-Expires is out of range.")
    if "host" not in names:
        raise _malformed("The host header must be signed.")
    unsigned = [name for name in map(str.lower, headers) if name.startswith("x-goog-")]
    if missing := sorted(set(unsigned) - set(names)):
        raise BadSignature(
            400,
            "MalformedSecurityHeader",
            "Your request has a malformed header.",
            f"Header was sent but is not among the signed ones: {', '.join(missing)}",
        )

    encoded = sorted(
        (quote(name, safe="~"), quote(value, safe="~"))
        for name, value in pairs
        if name != "X-Goog-Signature"
    )
    canonical = "\n".join(
        [
            method,
            quote(unquote_to_bytes(path), safe="/~"),
            "&".join(f"{name}={value}" for name, value in encoded),
            *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in names),
            "",
            ";".join(names),
            headers.get("x-goog-content-sha256", "UNSIGNED-PAYLOAD"),
        ]
    )
    scope = f"{date}/{location}/{service}/{request_type}"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = "\n".join([algorithm, query["X-Goog-Date"], scope, digest])
    if not keys.verify(email, to_sign.encode(), signature):
        raise BadSignature(
            403,
            "SignatureDoesNotMatch",
            "Access denied.",
            "The request signature we calculated does not match the signature you provided. "
            "Check your Google secret key and signing method.",
        )
    expires = signed_at + timedelta(seconds=lifetime)
    if at > expires:
        raise BadSignature(
            400,
            "ExpiredToken",
            "The provided token has expired.",
            f"Request signature expired at: {expires.isoformat()}",
        )
    if signed_at > at + _SKEW:
        raise BadSignature(
            403, "AccessDenied", "Access denied.", "The request was signed in the future."
        )
    return email
