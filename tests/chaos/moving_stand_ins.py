"""Stand-ins for the programs that docs/moving.md runs, in front of a local stack."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fake_google.sql.postgres import choose, installations
from fake_google.state import State
from tests.chaos.instances import environment_of
from tests.local.conftest import CLIENT, SERVER, Stack
from tests.page_commands import stand_in

# A TCP port in front of the connector's socket.
PROXY = """#!{python}
import asyncio, sys
_, flag, port, connection = sys.argv
assert flag == "--port"

async def pump(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()

async def serve(reader, writer):
    socket = "{root}/" + connection + "/.s.PGSQL.5432"
    back, forth = await asyncio.open_unix_connection(socket)
    await asyncio.gather(pump(reader, forth), pump(back, writer), return_exceptions=True)

async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", int(port)) as server:
        await server.serve_forever()

asyncio.run(main())
"""

# The two commands of the page, run with the server's own permission on the bucket.
GCLOUD = """#!{python}
import base64, json, os, pathlib, sys
os.environ.update({environment})
match sys.argv[1:]:
    case ["secrets", "versions", "access", "latest", "--secret", secret]:
        versions = json.loads(pathlib.Path({secrets!r}).read_text())[secret]
        print(base64.b64decode(versions[max(versions, key=int)]["data"]).decode())
    case ["storage", "rsync", "--recursive", source, target] if source.startswith("gs://"):
        import google.auth
        from google.cloud import storage
        credentials, project = google.auth.default()
        client = storage.Client(project, credentials=credentials)
        for blob in client.list_blobs(source.removeprefix("gs://")):
            path = pathlib.Path(target, blob.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            blob.download_to_filename(path)
    case ["storage", "rsync", "--recursive", source, target]:
        import google.auth
        from google.cloud import storage
        credentials, project = google.auth.default()
        bucket, _, prefix = target.removeprefix("gs://").partition("/")
        stored = storage.Client(project, credentials=credentials).bucket(bucket)
        for path in pathlib.Path(source).rglob("*"):
            if path.is_file():
                name = pathlib.PurePosixPath(prefix, path.relative_to(source).as_posix())
                stored.blob(str(name)).upload_from_filename(path)
    case other:
        sys.exit(f"no such command: {{other}}")
"""

PULUMI = """#!{python}
import sys
match sys.argv[1:]:
    case ["stack", "output", name]:
        print({outputs}[name])
    case ["config", "get", "name"]:
        sys.exit("error: configuration key 'name' not found for stack 'local'")
    case other:
        sys.exit(f"no such command: {{other}}")
"""


def path(stack: Stack, folder: Path) -> str:
    """Returns a PATH with them, the client's environment and PostgreSQL's own programs."""
    folder.mkdir()
    server = environment_of(stack)
    stand_in(
        folder,
        "cloud-sql-proxy",
        PROXY.format(python=sys.executable, root=server["CLOUDSQL_ROOT"]),
    )
    secrets = str(stack.folder / "secrets.json")
    stand_in(folder, "gcloud", GCLOUD.format(python=SERVER, environment=server, secrets=secrets))
    outputs = State(stack.folder).load("supervisor.json")["outputs"]
    stand_in(folder, "pulumi", PULUMI.format(python=sys.executable, outputs=outputs))
    postgres = choose(installations(), wanted=17, data=None).bin
    return os.pathsep.join([str(folder), str(CLIENT.parent), str(postgres), os.defpath])
