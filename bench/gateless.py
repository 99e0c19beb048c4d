"""Our server without the gate, to measure the gate's cost. Run by the server's Python."""

from tracking_server import __main__, middleware
from tracking_server.gate.gate import Gate

assemble = middleware.assemble


def without_gate(*args: object) -> middleware.Middleware:
    layers = assemble(*args)  # type: ignore[arg-type]
    assert isinstance(layers.access_log.app, Gate)
    layers.access_log.app = layers.access_log.app.app
    return layers


if __name__ == "__main__":
    middleware.assemble = without_gate  # type: ignore[assignment]
    __main__.main()
