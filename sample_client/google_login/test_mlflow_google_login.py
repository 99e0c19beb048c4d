"""Unit tests of the package: python -m unittest"""

import time
import unittest

import mlflow_google_login as login
import requests
from google.auth import crypt, jwt

SERVER = "https://mlflow.example.com"


class Unsigned(crypt.Signer):
    key_id = None

    def sign(self, message: bytes) -> bytes:
        return b"nothing"


class Tokens:
    """Makes tokens that end after some seconds, and counts them."""

    def __init__(self, seconds: int) -> None:
        self.seconds, self.servers = seconds, list[str]()

    def __call__(self, server: str) -> str:
        self.servers.append(server)
        claims = {"aud": server, "exp": int(time.time()) + self.seconds}
        encoded: bytes = jwt.encode(Unsigned(), claims)
        return encoded.decode()


def sent(auth: login.GoogleLogin, address: str) -> requests.PreparedRequest:
    return requests.Request("GET", address, auth=auth).prepare()


class GoogleLoginTest(unittest.TestCase):
    def test_a_server_is_scheme_host_and_port(self) -> None:
        for address, server in (
            (f"{SERVER}/api?x=1", SERVER),
            ("https://user:password@mlflow.example.com:443/", SERVER),
            ("https://mlflow.example.com:8443", f"{SERVER}:8443"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
        ):
            self.assertEqual(login.server_of(address), server)

    def test_a_token_is_kept_for_its_server_until_shortly_before_its_end(self) -> None:
        for seconds, count in ((login.LIFETIME, 1), (login.RENEWED_BEFORE - 1, 2)):
            tokens = Tokens(seconds)
            auth = login.GoogleLogin("X-Token", tokens)
            for _ in range(2):
                self.assertIn("Bearer ", sent(auth, f"{SERVER}/api").headers["X-Token"])
            self.assertEqual(tokens.servers, [SERVER] * count)
        sent(auth, "https://other.example.com/")
        self.assertEqual(tokens.servers[-1], "https://other.example.com")

    def test_a_token_is_sent_over_http_to_this_computer_only(self) -> None:
        tokens = Tokens(login.LIFETIME)
        auth = login.GoogleLogin("X-Token", tokens)
        with self.assertRaisesRegex(login.LoginProblem, "http://mlflow.example.com is plain http"):
            sent(auth, "http://mlflow.example.com/")
        self.assertEqual(tokens.servers, [])
        for address in ("http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:8080"):
            self.assertIn("X-Token", sent(auth, address).headers)

    def test_a_redirect_to_another_server_loses_the_token(self) -> None:
        auth = login.GoogleLogin("X-Token", Tokens(login.LIFETIME))
        for location, kept in (
            ("/elsewhere", True),
            (f"{SERVER}:443/elsewhere", True),
            ("https://other.example.com/", False),
            ("http://mlflow.example.com/", False),
            ("https://[", False),
        ):
            response = requests.Response()
            response.status_code, response.url = 307, f"{SERVER}/api"
            response.headers["location"] = location
            response.request = sent(auth, response.url)
            for hook in response.request.hooks["response"]:
                hook(response)
            self.assertEqual("X-Token" in response.request.headers, kept, location)


if __name__ == "__main__":
    unittest.main()
