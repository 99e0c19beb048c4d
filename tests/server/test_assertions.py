"""The assertions of Identity-Aware Proxy that are accepted, and those that are refused."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from tracking_server.accounts.assertions import (
    KEYS_LAST,
    MAX_ASSERTION,
    RETRY_AFTER,
    SKEW,
    Assertions,
    Keys,
    NoKeys,
    NotSigned,
)
from tracking_server.outgoing import iap_keys

from fake_google.endpoints import Endpoints
from fake_google.iap import LIFETIME, Signer, encoded

AUDIENCE = "/projects/123456789012/locations/us-central1/services/mlflow"
GOOGLE, OTHER = Signer(), Signer()
# Called by the test: assertions expire while other tests run.
Given = Callable[[], str]
HEADER = {"alg": "ES256", "typ": "JWT", "kid": GOOGLE.key_id}


def now() -> int:
    return int(time.time())


def assertion(address: str = "ada@example.com", signer: Signer = GOOGLE, **claims: Any) -> str:
    return signer.assertion(address, audience=AUDIENCE, **claims)


def with_header(**header: Any) -> str:
    _, claims, _ = assertion().split(".")
    return GOOGLE.signed(HEADER | header, json.loads(base64.urlsafe_b64decode(claims + "==")))


def changed(part: int, text: str) -> str:
    parts = assertion().split(".")
    parts[part] = text
    return ".".join(parts)


def hmac_with_public_key() -> str:
    """Returns an assertion that says the public key is a shared secret."""
    text = changed(0, encoded(json.dumps(HEADER | {"alg": "HS256"}).encode())).rpartition(".")[0]
    key = GOOGLE.public_keys[GOOGLE.key_id].encode()
    return f"{text}.{encoded(hmac.digest(key, text.encode(), 'sha256'))}"


class Google:
    """Google's keys, and how often they were fetched."""

    def __init__(self) -> None:
        self.signer, self.fetched, self.now, self.down = GOOGLE, 0, 0.0, False
        self.keys = Keys(self.fetch, clock=lambda: self.now)
        self.wall = time.time()
        self.assertions = Assertions(audience=AUDIENCE, keys=self.keys, now=lambda: self.wall)

    def fetch(self) -> dict[str, str]:
        self.fetched += 1
        if self.down:
            raise OSError("no route")
        return self.signer.public_keys

    def address(self, given: str) -> str:
        return asyncio.run(self.assertions.address(given.encode("latin-1")))


@pytest.fixture
def google() -> Google:
    return Google()


@pytest.mark.parametrize(
    ("given", "address"),
    [
        (assertion, "ada@example.com"),
        (lambda: assertion("Ada@Example.com"), "ada@example.com"),
        (lambda: assertion("o'brien+x@example.com"), "o'brien+x@example.com"),
        (lambda: assertion("train@p.iam.gserviceaccount.com"), "train@p.iam.gserviceaccount.com"),
        (lambda: assertion(iat=now() + SKEW // 2, exp=now() + SKEW), "ada@example.com"),
        (lambda: assertion(iat=now() - LIFETIME, exp=now() - SKEW // 2), "ada@example.com"),
        (lambda: assertion(google={"access_levels": ["a"] * 100}), "ada@example.com"),
    ],
)
def test_accepted_assertions(google: Google, given: Given, address: str) -> None:
    assert google.address(given()) == address


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (lambda: "", "malformed"),
        (lambda: "ada@example.com", "malformed"),
        (lambda: f"{assertion()}, {assertion()}", "malformed"),
        (lambda: f"Bearer {assertion()}", "malformed"),
        (lambda: f" {assertion()}", "malformed"),
        (lambda: f"{assertion()}\n", "malformed"),
        (lambda: f"{assertion()}=", "malformed"),
        (lambda: f"{assertion()}.", "malformed"),
        (lambda: assertion().rpartition(".")[0], "malformed"),
        (lambda: assertion().rpartition(".")[0] + ".", "malformed"),
        (lambda: changed(2, "A" * 86), "not signed"),
        (lambda: changed(2, "SIGNATURE_REMOVED_BY_GOOGLE"), "malformed"),
        (lambda: changed(0, encoded(b'{"alg": "none"}')), "another algorithm"),
        (lambda: changed(0, encoded(b'{"alg": "none"}')).rpartition(".")[0] + ".", "malformed"),
        (lambda: changed(0, encoded(b"[]")), "malformed"),
        (lambda: changed(0, "AAAA"), "malformed"),
        (lambda: changed(0, "A"), "malformed"),
        (lambda: changed(1, encoded(b"[]")), "malformed"),
        (lambda: changed(1, encoded(b'{"email": "eve@example.com"}')), "not signed"),
        (lambda: with_header(alg="none"), "another algorithm"),
        (lambda: with_header(alg="RS256"), "another algorithm"),
        (lambda: with_header(alg="es256"), "another algorithm"),
        (lambda: with_header(alg=["ES256"]), "another algorithm"),
        (hmac_with_public_key, "malformed"),
        (lambda: with_header(kid="key99"), "unknown key"),
        (lambda: with_header(kid=None), "unknown key"),
        (lambda: with_header(kid={}), "unknown key"),
        (lambda: assertion(signer=OTHER), "not signed"),
        (lambda: assertion(iss="https://accounts.google.com"), "issuer"),
        (lambda: assertion(iss=None), "issuer"),
        (lambda: assertion(aud=AUDIENCE.replace("mlflow", "other")), "audience"),
        (lambda: assertion(aud=AUDIENCE.replace("us-central1", "us-east1")), "audience"),
        (lambda: assertion(aud=[AUDIENCE]), "audience"),
        (lambda: assertion(aud=None), "audience"),
        (lambda: assertion(exp=now() - SKEW - 5), "expired"),
        (lambda: assertion(iat=now() + SKEW + 300, exp=now() + 900), "future"),
        (lambda: assertion(exp="never"), "not signed"),
        (lambda: assertion(exp=None), "not signed"),
        (lambda: assertion(email=None), "address"),
        (lambda: assertion(email=["ada@example.com"]), "address"),
        (lambda: assertion(email="ada"), "address"),
        (lambda: assertion(email="securetoken.google.com/p:ada@example.com"), "address"),
        (lambda: assertion(email="ada@example.com\n"), "address"),
        (lambda: assertion(email=f"{'a' * 255}@example.com"), "address"),
        (lambda: assertion(google="x" * MAX_ASSERTION), "malformed"),
    ],
)
def test_refused_assertions(google: Google, given: Given, why: str) -> None:
    with pytest.raises(NotSigned, match=why) as refused:
        google.address(given())
    assert len(str(refused.value)) < 40  # nothing of the assertion


def test_an_assertion_is_verified_once_and_refused_when_it_expires(google: Google) -> None:
    given = assertion()
    google.address(given)
    google.signer, google.now = OTHER, KEYS_LAST
    assert google.address(given) == "ada@example.com"
    google.wall += LIFETIME + SKEW + 1
    with pytest.raises(NotSigned):
        google.address(given)


def test_a_new_key_is_fetched_and_a_withdrawn_one_refused(google: Google) -> None:
    google.address(assertion())
    google.signer = Signer()
    google.signer.rotate()
    google.now += RETRY_AFTER
    assert google.address(assertion(signer=google.signer)) == "ada@example.com"
    with pytest.raises(NotSigned, match="unknown key"):
        google.address(assertion("eve@example.com"))
    assert google.fetched == 2


def test_keys_are_fetched_again_after_an_hour_and_used_if_that_fails(google: Google) -> None:
    google.address(assertion())
    google.down, google.now = True, KEYS_LAST
    google.address(assertion("grace@example.com"))
    google.address(assertion("mary@example.com"))
    assert google.fetched == 2


def test_unknown_keys_are_asked_for_seldom(google: Google) -> None:
    for number in range(20):
        with pytest.raises(NotSigned):
            google.address(with_header(kid=f"guess{number}"))
    assert google.fetched == 1
    google.now += RETRY_AFTER
    with pytest.raises(NotSigned):
        google.address(with_header(kid="guess"))
    assert google.fetched == 2


def test_without_keys_nothing_is_accepted(google: Google) -> None:
    google.down = True
    for _ in range(3):
        with pytest.raises(NoKeys):
            google.address(assertion())
    assert google.fetched == 1
    google.down, google.now = False, RETRY_AFTER
    assert google.address(assertion()) == "ada@example.com"


def test_many_requests_share_one_fetch(google: Google) -> None:
    async def together(ask: Callable[[], Any]) -> list[str]:
        return await asyncio.gather(*(ask() for _ in range(20)))

    given = assertion().encode()
    assert asyncio.run(together(lambda: google.assertions.address(given))) == (
        ["ada@example.com"] * 20
    )
    assert google.fetched == 1


def test_only_a_response_with_keys_is_accepted() -> None:
    answers = [
        web.Response(status=500, text='{"key": "PEM"}'),
        web.Response(status=302, headers={"Location": "/"}),
        web.Response(text="not JSON"),
        web.Response(text="{}"),
        web.Response(text='["key"]'),
        web.Response(text='{"key": 1}'),
        web.Response(text=json.dumps({"key": "x" * iap_keys.LARGEST})),
    ]
    waiting = iter([*answers, web.Response(text='{"key": "PEM"}')])

    async def answer(_: web.Request) -> web.StreamResponse:
        return next(waiting)

    endpoints = Endpoints()
    try:
        address = endpoints.serve(answer)
        for _ in answers:
            with pytest.raises((ValueError, OSError)):
                iap_keys.fetch(address)
        assert iap_keys.fetch(address) == {"key": "PEM"}
    finally:
        endpoints.close()
