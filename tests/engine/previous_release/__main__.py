"""Saves the stack of a release.

A module of this name, because processes that run programs import the main module of any other name,
and with it this checkout's `infra`.
"""

import sys

from tests.engine.previous_release import keep

if len(sys.argv) != 2:
    sys.exit("Which release? `git tag` lists them: make previous-release REVISION=v1.2")
keep(sys.argv[1])
