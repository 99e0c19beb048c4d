"""The database and the stand-ins of the server's layer."""

from tests.server.conftest import cloudsql_root, postgres, pytest_sessionfinish

__all__ = ["cloudsql_root", "postgres", "pytest_sessionfinish"]
