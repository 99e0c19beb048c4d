"""Runs the deployment that `__main__.py` declares on this computer."""

import sys

# Check this first: an older Python can't parse the other modules.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        "error: Python 3.11 to 3.14 is needed, and this is {}.{}: `make local PYTHON=python3.11` "
        "installs what is needed under .venvs/ and starts it.".format(*sys.version_info[:2])
    )
