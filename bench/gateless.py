"""Our server without the gate, to measure the gate's cost. Run by the server's Python."""

import gc
import os

from tracking_server import logs
from tracking_server.__main__ import assemble, prepare
from tracking_server.boot import settings
from tracking_server.gate.access_log import AccessLog
from tracking_server.gate.gate import Gate
from tracking_server.gate.response_headers import ResponseHeaders
from tracking_server.serve import server


def main() -> None:
    logs.configure(os.environ.get("GCP_PROJECT"))
    config = settings.load(os.environ)
    flask, values, callbacks = prepare(config)
    gc.freeze()
    headers, close = assemble(config, flask, values, callbacks)
    assert isinstance(headers, ResponseHeaders)
    logged = headers.app
    assert isinstance(logged, AccessLog)
    assert isinstance(logged.app, Gate)
    logged.app = logged.app.app
    gc.enable()
    server.run(headers, address=config.bind_address, port=config.port, close=close)


if __name__ == "__main__":
    main()
