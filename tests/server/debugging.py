"""The server with every logger at DEBUG, as someone would run it to look for an error."""

import logging
import runpy

from tracking_server import logs

_configure = logs.configure


def _configure_loudly(project: str | None) -> None:
    _configure(project)
    for name in (None, *logging.Logger.manager.loggerDict):
        logging.getLogger(name).setLevel(logging.DEBUG)


logs.configure = _configure_loudly
runpy.run_module("tracking_server", run_name="__main__")
