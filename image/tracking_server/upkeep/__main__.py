"""Runs the upkeep job: settings, secrets, database, then the cleanup and the archival."""

import logging
import os
import sys
from collections.abc import Sequence

from tracking_server import logs
from tracking_server.boot import schema, secrets
from tracking_server.database import address, engines
from tracking_server.errors import BootError
from tracking_server.mlflow import internals
from tracking_server.outgoing import hidden_identity
from tracking_server.upkeep import archive, settings
from tracking_server.upkeep.cleanup import Cleanup

CONNECTIONS = 1
"""Database connections. `infra/facts/limits.py` reserves as many."""

log = logging.getLogger("tracking_server.upkeep")


def stores(config: settings.UpkeepSettings) -> tuple[str, str]:
    """Returns the addresses of the bucket and of the database.

    Raises:
        BootError: naming each secret that can't be read or holds an invalid value.
    """
    values = secrets.read_stores(config, config.secrets)
    return values["artifact_url"], values["database_url"]


def run(config: settings.UpkeepSettings, *, dry_run: bool) -> bool:
    """Do what the settings ask for. Returns whether all of it is done.

    Raises:
        BootError: with one line that says what is missing.
    """
    if not (config.cleanup_after_days or config.archive_traces_after_days):
        log.info("nothing to do: CLEANUP_AFTER_DAYS and ARCHIVE_TRACES_AFTER_DAYS are 0")
        return True
    hidden_identity.hide_from_mlflow()
    artifact_url, database_url = stores(config)
    internals.configure_server(
        backend_store_uri=engines.PLUGIN_URL,
        serve_artifacts=False,
        settings={"MLFLOW_CONFIGURE_LOGGING": "false"},
    )
    database = address.parse(database_url).at_root(config.cloudsql_root)
    engines.connect_with(database, pool_size=CONNECTIONS)
    engine = engines.single_connection_engine()
    try:
        schema.require(engine, deadline=config.boot_patience)
    finally:
        engine.dispose()
    store = internals.open_store_of_bucket(engines.PLUGIN_URL, bucket=artifact_url)
    done = True
    if days := config.cleanup_after_days:
        cleanup = Cleanup(store.engine, store, root=artifact_url, days=days, dry_run=dry_run)
        done = cleanup.run()
    if days := config.archive_traces_after_days:
        done &= archive.archive(store, root=artifact_url, days=days, dry_run=dry_run)
    return done


def main(arguments: Sequence[str]) -> int:
    """Run the job. Returns 0 if all is done, 1 if something failed."""
    logs.configure(os.environ.get("GCP_PROJECT"))
    if unknown := [argument for argument in arguments if argument != "--dry-run"]:
        log.critical("unknown argument %r; the only one is --dry-run", unknown[0])
        return 1
    try:
        done = run(settings.load(os.environ), dry_run="--dry-run" in arguments)
    except BootError as error:
        log.critical("%s", error)
        return 1
    except Exception:
        log.critical("the job has failed", exc_info=True)
        return 1
    log.info("upkeep: %s", "done" if done else "something failed, for the reasons above")
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
