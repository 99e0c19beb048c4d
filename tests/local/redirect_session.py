"""Run by test_google_login.py in stock MLflow's own environment, with the plug-in installed.

Reads three things as JSON: the header for the token, the local port for each address, and the
addresses to request. Prints a line for each request: the response's status and the server that the
token was made for, or the reason why it wasn't sent.
"""

import json
import sys
from typing import Any

import mlflow_google_login
import requests
from google.auth import crypt, jwt
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool


class Resolved(HTTPAdapter):
    """Connects to a local port, whatever the address says."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._pool = HTTPConnectionPool("127.0.0.1", port)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        return self._pool


class Unsigned(crypt.Signer):
    key_id = None

    def sign(self, message: bytes) -> bytes:
        return b"nothing"


def token(server: str) -> str:
    asked.append(server)
    claims = {"aud": server, "exp": 4_000_000_000}
    encoded: bytes = jwt.encode(Unsigned(), claims)
    return encoded.decode()


header, ports, addresses = json.load(sys.stdin)
for case, address in enumerate(addresses):
    asked: list[str] = []
    login = mlflow_google_login.GoogleLogin(header, token)
    with requests.Session() as session:
        # Ignore this computer's proxy and .netrc.
        session.trust_env = False
        for prefix, port in ports.items():
            session.mount(prefix, Resolved(port))
        # As MLflow sends its requests.
        headers = {"Authorization": "Basic dXNlcjpwYXNzd29yZA==", "X-Case": str(case)}
        try:
            answer = session.post(address, data=b"body", headers=headers, auth=login, timeout=10)
            print(answer.status_code, *asked)
        except mlflow_google_login.LoginProblem as problem:
            print(problem)
