"""Without a token for the bucket, the response says that a request may succeed later."""

import asyncio
from typing import Any

import pytest
from google.auth.credentials import TokenState
from google.auth.exceptions import TransportError
from tracking_server.artifacts import bucket
from tracking_server.artifacts.transfers import PREFIXES, ProxiedTransfers
from tracking_server.errors import BucketError

from tests.server.exchange import Exchange


class NoToken:
    """Credentials whose metadata server doesn't respond to the first few requests."""

    token_state = TokenState.INVALID

    def __init__(self) -> None:
        self.asked = 0

    def before_request(self, *_: object) -> None:
        self.asked += 1
        raise TransportError("Compute Engine Metadata server unavailable")


def test_a_request_to_the_bucket_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "PAUSES", (0.01, 0.01))
    credentials: Any = NoToken()
    with pytest.raises(BucketError, match="returns no token") as raised:
        asyncio.run(bucket.Bucket(credentials).open("http://127.0.0.1:9/b/o"))
    assert raised.value.passing
    assert credentials.asked == 3


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_request_for_an_artifact_gets_503(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise TransportError("Compute Engine Metadata server unavailable")

    monkeypatch.setattr(ProxiedTransfers, "_repository", property(refuse))

    async def ask() -> Exchange:
        transfers: Any = ProxiedTransfers(None, "gs://b")  # type: ignore[arg-type]
        return await Exchange(transfers, method, f"{PREFIXES[0]}a.txt").done()

    answer = asyncio.run(ask())
    assert answer.status == 503
    assert b"TEMPORARILY_UNAVAILABLE" in answer.body
