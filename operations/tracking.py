"""Calls the stack's server with the login of the outputs, through Google's front end if needed."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from operations import google_login
from operations.errors import OperationError
from operations.stack import CloudStack, LocalStack, Stack

# Longer than a cold start.
ANSWER_SECONDS = 60
_LARGEST = 10_000_000


class _Stay(urllib.request.HTTPRedirectHandler):
    """Doesn't follow redirects: Google's login page must not get the password."""

    def redirect_request(self, *_: Any) -> None:
        return None


def opener(stack: Stack) -> urllib.request.OpenerDirector:
    # A proxy in the environment can't reach this computer's own addresses. urllib would send it the
    # header Proxy-Authorization, which is for Identity-Aware Proxy.
    direct = isinstance(stack, LocalStack) or stack.setting("access") == "iap"
    return urllib.request.build_opener(_Stay, *([urllib.request.ProxyHandler({})] * direct))


def authorization(stack: Stack) -> str:
    login = f"{stack.outputs['tracking_username']}:{stack.password()}"
    return f"Basic {base64.b64encode(login.encode()).decode()}"


class Tracking:
    """MLflow's REST API."""

    def __init__(self, stack: Stack) -> None:
        self.address = str(stack.outputs["tracking_uri"])
        self._opener = opener(stack)
        self._headers = {
            "Authorization": authorization(stack),
            "Content-Type": "application/json",
            **(google_login.headers(stack) if isinstance(stack, CloudStack) else {}),
        }

    def get(self, path: str) -> dict[str, Any]:
        return self._call("GET", path, None)

    def send(self, method: str, path: str, **fields: object) -> dict[str, Any]:
        return self._call(method, path, json.dumps(fields).encode())

    def _call(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        """Returns the response's JSON.

        Raises:
            Refused: if the server refuses the request.
            OperationError: if it doesn't respond.
        """
        request = urllib.request.Request(  # noqa: S310 an output of the stack
            self.address + path, body, self._headers, method=method
        )
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS) as answer:
                found: dict[str, Any] = json.loads(answer.read(_LARGEST))
                return found
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read(10_000)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise OperationError(f"no answer from {self.address} ({error})") from None


class Refused(OperationError):
    """The server has refused a request. `kind` is MLflow's name of the error, if it has one."""

    def __init__(self, status: int, body: bytes) -> None:
        text, self.kind = body.decode(errors="replace").strip(), ""
        try:
            found = json.loads(text)
            text, self.kind = str(found["message"]), str(found["error_code"])
        except (ValueError, KeyError, TypeError):
            pass
        super().__init__(f"The server responded with {status}: {text[:1000]}")
