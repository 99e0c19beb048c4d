"""Code that runs for callers can connect to the internet only, whichever library it uses."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address, ip_network

import pytest
from tracking_server.outgoing.egress import is_reachable

PUBLIC = ["8.8.8.8", "142.250.1.1", "2607:f8b0::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
CLOSED = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "169.254.1.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "fe80::1",
    "fec0::1",
    "fc00::1",
    "fd20:ce::254",
    "ff02::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2001:0:1::80ff:fffe",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_the_internet_is_reachable(address: str) -> None:
    assert is_reachable(ip_address(address))


@pytest.mark.parametrize("address", CLOSED)
def test_internal_addresses_are_not_reachable(address: str) -> None:
    assert not is_reachable(ip_address(address))


@pytest.mark.parametrize(
    ("address", "reachable"),
    [
        ("10.8.0.1", True),
        ("::ffff:10.8.0.1", True),
        ("64:ff9b::a08:1", True),
        ("10.9.0.1", False),
        ("127.0.0.1", False),
        ("8.8.8.8", True),
    ],
)
def test_a_network_can_be_opened(address: str, reachable: bool) -> None:
    assert is_reachable(ip_address(address), [ip_network("10.8.0.0/16")]) is reachable


@pytest.mark.parametrize("address", ["169.254.169.254", "fd20:ce::254", "::ffff:a9fe:a9fe"])
def test_nothing_opens_the_metadata_server(address: str) -> None:
    everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    assert not is_reachable(ip_address(address), everything)


WAYS = {
    "requests": "import requests; requests.get(URL, timeout=5)",
    "urllib": "import urllib.request; urllib.request.urlopen(URL, timeout=5)",
    "urllib3": "import urllib3; urllib3.PoolManager().request('GET', URL, retries=False)",
    "aiohttp under uvloop": """
import aiohttp, uvloop
async def get():
    async with aiohttp.ClientSession() as session, session.get(URL) as answer:
        await answer.read()
uvloop.run(get())
""",
    "google-auth": """
import google.auth.transport.requests as transport
transport.Request()(URL, timeout=5)
""",
}
SCRIPT = """
import json, sys
from ipaddress import ip_network
from tracking_server.outgoing import egress
URL, OPENED, CODE = sys.argv[1:]
egress.enforce(
    internal_networks=[ip_network(n) for n in json.loads(OPENED)],
    own_port=1,
    may_start_programs=False,
)
exec(CODE)
"""


def run(code: str, *, url: str = "", opened: tuple[str, ...] = ()) -> str:
    """Returns the last line of a process under the policy, or an empty string if it succeeded."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, url, json.dumps(opened), code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


@pytest.fixture(scope="module")
def hits() -> list[str]:
    return []


@pytest.fixture(scope="module")
def port(hits: list[str]) -> Iterator[int]:
    """Serve at two local addresses; `/away` redirects from one to the other."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hits.append(self.path)
            self.send_response(302 if self.path == "/away" else 200)
            if self.path == "/away":
                self.send_header("Location", f"http://127.0.0.1:{server.server_port}/inside")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


# Succeeds if one of the URLs can be reached.
ANY = """
WAY, URLS = {way!r}, {urls!r}
for URL in URLS:
    try:
        exec(WAY)
    except Exception as error:
        refused = error
    else:
        sys.exit()
raise refused
"""


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_no_library_connects_to_an_internal_address(way: str, port: int, hits: list[str]) -> None:
    hits.clear()
    hosts = ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]")
    assert run(ANY.format(way=way, urls=[f"http://{host}:{port}/" for host in hosts]))
    assert not hits
    assert not run(way, url=f"http://127.0.0.1:{port}/opened", opened=("127.0.0.0/8",))
    assert hits == ["/opened"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere loopback has one address")
@pytest.mark.parametrize("way", [name for name in WAYS if name != "urllib3"])
def test_no_library_follows_a_redirect_to_an_internal_address(
    way: str, port: int, hits: list[str]
) -> None:
    hits.clear()
    assert run(WAYS[way], url=f"http://127.0.0.2:{port}/away", opened=("127.0.0.2/32",))
    assert hits == ["/away"]


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.fork()",
        "open('/proc/self/environ').read()",
        "open('//proc/self/environ').read()",
        "open('/tmp/../proc/self/environ').read()",
        "open(b'/proc/self/environ').read()",
        "import os; os.chdir('/'); open('proc/self/environ').read()",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "import socket; socket.socket(type=2).sendmsg([b'x'], [], 0, ('127.0.0.1', 9))",
        "from pathlib import Path; Path('/dev/zero').read_bytes()",
    ],
)
def test_no_program_is_started_and_no_device_opened(code: str) -> None:
    assert "EgressRefused" in run(code)


def test_the_servers_own_connections_are_unrestricted(port: int, hits: list[str]) -> None:
    hits.clear()
    ours = """
from google.auth.credentials import AnonymousCredentials
from tracking_server.outgoing import google_api
google_api.own_session(AnonymousCredentials()).get(URL, timeout=5)
google_api.own_request()(URL, timeout=5)
"""
    assert not run(ours, url=f"http://127.0.0.1:{port}/")
    assert len(hits) == 2


def test_googles_credentials_are_not_found() -> None:
    search = """
from tracking_server.outgoing import hidden_identity
hidden_identity.hide_from_mlflow()
import google.auth
google.auth.default()
"""
    assert "DefaultCredentialsError" in run(search)
