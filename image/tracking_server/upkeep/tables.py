"""Finds in MLflow's tables what was deleted long ago, and what still refers to it."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Connection, String, bindparam, text

from tracking_server.upkeep.plan import Candidate, Key, Kind, Reference

MOST = 5000
"""Candidates of each kind in one run of the job, the oldest first; the next run gets the others."""

_EXPERIMENTS = """
SELECT experiment_id::text, name, experiment_id::text, true, artifact_location
FROM experiments
WHERE lifecycle_stage = 'deleted' AND last_update_time < :cutoff
    -- Clients use this experiment if they name none, and MLflow creates it only once.
    AND experiment_id <> 0
ORDER BY last_update_time LIMIT :most
"""
_RUNS = """
SELECT run_uuid, coalesce(name, ''), experiment_id::text, true, artifact_uri
FROM runs WHERE lifecycle_stage = 'deleted' AND deleted_time <= :cutoff
ORDER BY deleted_time LIMIT :most
"""
# MLflow deletes an experiment's runs with it, but not its models: they are deleted with its rows.
_MODELS = """
(SELECT model_id, name, experiment_id::text, true, artifact_location
 FROM logged_models WHERE lifecycle_stage = 'deleted' AND last_updated_timestamp_ms <= :cutoff
 ORDER BY last_updated_timestamp_ms LIMIT :most)
UNION ALL
(SELECT model_id, name, experiment_id::text, false, artifact_location
 FROM logged_models WHERE experiment_id::text = ANY(:experiments)
    AND NOT (lifecycle_stage = 'deleted' AND last_updated_timestamp_ms <= :cutoff))
"""

_CANDIDATES: tuple[tuple[Kind, str], ...] = (
    ("experiment", _EXPERIMENTS),
    ("run", _RUNS),
    ("logged model", _MODELS),
)

# The kind and id of what needs something, a text for the log, and the text with the ids.
_REFERENCES = """
WITH mentions (kind, id, why, texts) AS (
    SELECT NULL, NULL, 'model version ' || name || '/' || version || ' uses it',
        concat_ws(' ', run_id, source, storage_location, run_link)
    FROM model_versions WHERE current_stage IS DISTINCT FROM 'Deleted_Internal'
    UNION ALL
    SELECT 'logged model', model_id, 'logged model ' || model_id || ' comes from it', source_run_id
    FROM logged_models
    UNION ALL
    SELECT DISTINCT 'logged model', model_id,
        'it has metrics of logged model ' || model_id, run_id
    FROM logged_model_metrics WHERE run_id = ANY(:runs)
    UNION ALL
    SELECT 'run', inputs.destination_id, 'a dataset of run ' || inputs.destination_id
        || ' comes from it', datasets.dataset_source
    FROM datasets JOIN inputs ON inputs.source_id = datasets.dataset_uuid
        AND inputs.source_type = 'DATASET' AND inputs.destination_type = 'RUN'
    UNION ALL
    -- The addresses of its runs, models and traces begin with this one.
    SELECT 'experiment', experiment_id::text, 'experiment ' || experiment_id
        || ' has artifacts in its folder', artifact_location
    FROM experiments
)
SELECT DISTINCT kind, id, why, found[1]
FROM mentions, regexp_matches(texts, '[0-9a-f]{32}', 'g') AS found
WHERE found[1] = ANY(:hexes)
"""
_CONTENTS = """
SELECT 'run', run_uuid, experiment_id::text FROM runs
WHERE experiment_id::text = ANY(:experiments)
UNION ALL
SELECT 'logged model', model_id, experiment_id::text FROM logged_models
WHERE experiment_id::text = ANY(:experiments)
"""

_EXISTING: dict[Kind, str] = {
    "run": "SELECT run_uuid FROM runs WHERE run_uuid = ANY(:ids)",
    "logged model": "SELECT model_id FROM logged_models WHERE model_id = ANY(:ids)",
    "experiment": "SELECT experiment_id::text FROM experiments "
    "WHERE experiment_id::text = ANY(:ids)",
}

_EXPERIMENTS_IN = """
SELECT experiment_id::text FROM experiments, unnest(:folders) AS folder
WHERE starts_with(rtrim(artifact_location, '/') || '/', folder || '/')
"""


def candidates(connection: Connection, *, cutoff: int) -> list[Candidate]:
    """Returns what was deleted before `cutoff`, in milliseconds since 1970."""
    found: list[Candidate] = []
    experiments: list[str] = []
    for kind, statement in _CANDIDATES:
        rows = _rows(connection, statement, cutoff=cutoff, most=MOST, experiments=experiments)
        for id_, name, experiment, deleted, location in rows:
            found.append(
                Candidate(
                    key=Key(kind, id_),
                    name=name,
                    experiment=experiment,
                    deleted=deleted,
                    location=location or "",
                )
            )
        if kind == "experiment":
            experiments = [candidate.key.id for candidate in found]
    return found


def references(connection: Connection, found: Sequence[Candidate]) -> Iterator[Reference]:
    """Yields what refers to the candidates, and what is in candidates that are experiments."""
    by_hex = {
        candidate.key.id.removeprefix("m-"): candidate.key
        for candidate in found
        if candidate.key.kind != "experiment"
    }
    runs = [candidate.key.id for candidate in found if candidate.key.kind == "run"]
    experiments = [candidate.key.id for candidate in found if candidate.key.kind == "experiment"]
    for kind, id_, why, hex_ in _rows(connection, _REFERENCES, runs=runs, hexes=[*by_hex]):
        yield Reference(Key(kind, id_) if kind else None, by_hex[hex_], why)
    for kind, id_, experiment in _rows(connection, _CONTENTS, experiments=experiments):
        inside = Key(kind, id_)
        yield Reference(inside, Key("experiment", experiment), f"{inside} in it is kept")


def existing(connection: Connection, kind: Kind, ids: Sequence[str]) -> set[str]:
    """Returns which of the ids still exist."""
    return {row[0] for row in _rows(connection, _EXISTING[kind], ids=[*ids])}


def experiments_in(connection: Connection, *folders: str) -> set[str]:
    """Returns the experiments whose artifacts are in one of the folders."""
    return {row[0] for row in _rows(connection, _EXPERIMENTS_IN, folders=[*folders])}


_TYPES: dict[type, Any] = {list: ARRAY(String), int: BigInteger()}


def _rows(connection: Connection, statement: str, **parameters: Any) -> Any:
    named = {name: given for name, given in parameters.items() if f":{name}" in statement}
    bound = [bindparam(name, type_=_TYPES[type(given)]) for name, given in named.items()]
    return connection.execute(text(statement).bindparams(*bound), named)
