"""The hot routes: each reads a request, runs its statement and returns the JSON of the response.

Each raises NotHot, before it has written anything, if MLflow has to handle the request.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVarTuple
from uuid import uuid4

from tracking_server.accounts import audit
from tracking_server.accounts.identity import CALLER
from tracking_server.accounts.permissions import Action, Permissions, Remembered
from tracking_server.hot_routes import answer, statements
from tracking_server.hot_routes.answer import Links, LinksByRun, Row
from tracking_server.hot_routes.connections import TOO_SLOW, Connections
from tracking_server.hot_routes.request import (
    LONGEST_EXPERIMENT,
    LONGEST_KEY,
    LONGEST_PARAM,
    LONGEST_TAG,
    LONGEST_USER,
    METRIC,
    MOST_METRICS,
    MOST_PARAMS,
    MOST_TAGS,
    MOST_TERMS,
    MOST_TOGETHER,
    RUN_NAME,
    RUN_USER,
    Fields,
    Metrics,
    NotHot,
    body_fields,
    experiment_id,
    integer,
    name,
    offset,
    only,
    page_token,
    query_fields,
    run_id,
    text,
)
from tracking_server.hot_routes.searches import Compile, Searches
from tracking_server.hot_routes.statements import ENTRY_SIZE

log = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")

Route = Callable[["Database", bytes], Awaitable[str]]
"""Its arguments are the database and the body, or for GET the query."""

_RUN = frozenset({"run_id", "run_uuid"})
_KEY_VALUE = frozenset({"key", "value"})
_METRIC_OF_RUN = METRIC | {"run_id"}
_VIEWS = ("ACTIVE_ONLY", "DELETED_ONLY", "ALL")
_STATUSES = frozenset({"RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"})

LARGEST_PAGE = 25_000
"""Values of a metric in one response, as many as MLflow's client asks for at a time."""

LARGEST_SEARCH = 5000
"""Runs of one page; most pages have 100, and the client's has 1,000."""

MOST_EXPERIMENTS = 1000

MOST_ASKED_FOR = 20
"""Experiments of a search whose permissions are checked one by one; MLflow checks more together."""

INLINE = 64 * 1024
"""Bytes from the database whose response is written on the event loop, in a few milliseconds."""


class Database:
    """The database for the routes: connections, MLflow's SQL for a search, and permissions.

    Without accounts there are no `permissions`, and everyone may do everything.
    """

    def __init__(self, connections: Connections, permissions: Permissions | None = None) -> None:
        self.open, self.fetch, self.close = (
            connections.open,
            connections.fetch,
            connections.close,
        )
        self.use(_not_imported, _not_imported)
        self._permissions = permissions
        self._experiments: Remembered[str, int] = Remembered()

    def use(self, compile_search: Compile, random_run_name: Callable[[], str]) -> None:
        """Use these functions of MLflow; requests that need them are passed on before."""
        self.searches, self.random_name = Searches(compile_search), random_run_name

    async def permit_run(self, action: Action, run_id: str) -> str:
        """Returns the run's id if the caller may do this with the run.

        Raises:
            NotHot: if not, or if the run doesn't exist.
        """
        audit.add(run=run_id)
        if self._permissions and not _is_admin():
            experiment = self._experiments.get(run_id)
            if experiment is None:
                rows = await self.fetch(statements.EXPERIMENT_OF_RUN, run_id)
                experiment = int(_only_row(rows)["experiment_id"])
                self._experiments.put(run_id, experiment)
            await self._permit(self._permissions, action, experiment, run_id)
        return run_id

    async def permit_experiment(self, action: Action, experiment: int) -> int:
        """Returns the experiment's id if the caller may do this in the experiment.

        Raises:
            NotHot: if not.
        """
        if self._permissions and not _is_admin():
            await self._permit(self._permissions, action, experiment)
        return experiment

    async def permit_search(self, experiments: Sequence[int]) -> None:
        """Check that the caller may search all of these experiments; MLflow leaves out the others.

        Raises:
            NotHot: if not, or if there are too many to ask for each.
        """
        if self._permissions and not _is_admin():
            if len(experiments) > MOST_ASKED_FOR:
                raise NotHot
            for experiment in experiments:
                await self._permit(self._permissions, "search runs", experiment)

    def permit_models(self) -> None:
        """Check that the caller may change every logged model; for others, MLflow decides.

        Raises:
            NotHot: if not.
        """
        if self._permissions and not _is_admin():
            raise NotHot

    async def _permit(
        self, permissions: Permissions, action: Action, experiment: int, run_id: str = ""
    ) -> None:
        caller = CALLER.get()
        try:
            if caller and await permissions.granted(caller.username, action, experiment, run_id):
                return
        except Exception as error:
            log.info("hot routes: no permission was found: %s", type(error).__name__)
        raise NotHot


def _not_imported(*_: object) -> NoReturn:
    raise NotHot


async def log_metric(database: Database, body: bytes) -> str:
    fields = body_fields(body, _RUN | METRIC)
    metrics = Metrics()
    metrics.add(fields)
    if metrics.models != [None]:
        return await _log_all(database, run_id(fields), metrics, {}, {})
    [key], [value], [timestamp], [step], [nan] = metrics.columns()
    run = await database.permit_run("update run", run_id(fields))
    return await _written(database, statements.LOG_METRIC, run, key, value, timestamp, step, nan)


async def log_param(database: Database, body: bytes) -> str:
    fields = body_fields(body, _RUN | _KEY_VALUE)
    key, value = name(fields["key"]), text(fields["value"], LONGEST_PARAM)
    run = await database.permit_run("update run", run_id(fields))
    return await _written(database, statements.LOG_PARAM, run, key, value)


async def set_tag(database: Database, body: bytes) -> str:
    fields = body_fields(body, _RUN | _KEY_VALUE)
    key, value = _tag(fields["key"], fields["value"])
    run = await database.permit_run("update run", run_id(fields))
    return await _written(database, statements.SET_TAG, run, key, value)


async def log_batch(database: Database, body: bytes) -> str:
    fields = body_fields(body, {"run_id", "metrics", "params", "tags"})
    run, metrics = run_id(fields), Metrics()
    for given in _list(fields, "metrics", MOST_METRICS):
        # MLflow's client repeats the run in each metric, and MLflow ignores it.
        if only(given, _METRIC_OF_RUN).get("run_id", run) != run:
            raise NotHot
        metrics.add(given)
    params: dict[str, str] = {}
    for given in _list(fields, "params", MOST_PARAMS):
        only(given, _KEY_VALUE)
        params[name(given["key"])] = text(given["value"], LONGEST_PARAM)
    tags: dict[str, str] = {}
    for given in _list(fields, "tags", MOST_TAGS):
        only(given, _KEY_VALUE)
        key, value = _tag(given["key"], given["value"])
        tags[key] = value
    count = len(metrics.keys) + len(params) + len(tags)
    if len(params) != len(fields.get("params", ())) or not 0 < count <= MOST_TOGETHER:
        raise NotHot
    if params or tags or any(metrics.models):
        return await _log_all(database, run, metrics, params, tags)
    await database.permit_run("update run", run)
    return await _written(database, statements.LOG_METRICS, run, *metrics.columns())


async def _log_all(
    database: Database,
    run: str,
    metrics: Metrics,
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> str:
    await database.permit_run("update run", run)
    if any(metrics.models):
        database.permit_models()
    pairs = (list(column) for pairs in (params, tags) for column in (pairs.keys(), pairs.values()))
    return await _written(
        database,
        statements.LOG_BATCH,
        run,
        *metrics.columns(),
        *pairs,
        *metrics.models_columns(),
    )


async def create_run(database: Database, body: bytes) -> str:
    fields = body_fields(body, {"experiment_id", "user_id", "run_name", "start_time", "tags"})
    tags: dict[str, str] = {}
    for given in _list(fields, "tags", MOST_TAGS):
        only(given, _KEY_VALUE)
        tags[text(given["key"], LONGEST_KEY)] = text(given["value"], LONGEST_TAG)
    user = text(fields.get("user_id", ""), LONGEST_USER)
    run_name = text(fields.get("run_name", ""), LONGEST_KEY)
    twice = len(tags) != len(fields.get("tags", ()))
    if caller := CALLER.get():
        user = caller.username
        tags.pop(RUN_USER, None)
        tags[RUN_USER] = user
    run_name = run_name or tags.get(RUN_NAME) or database.random_name()
    if twice or tags.setdefault(RUN_NAME, run_name) != run_name:
        raise NotHot
    experiment, new_id = experiment_id(fields["experiment_id"]), uuid4().hex
    row = {
        "run_uuid": new_id,
        "name": run_name,
        "experiment_id": experiment,
        "user_id": user,
        "status": "RUNNING",
        "start_time": integer(fields.get("start_time", 0)),
        "end_time": None,
        "lifecycle_stage": "active",
        "metric_keys": None,
        "param_keys": None,
        "tag_keys": list(tags),
        "tag_values": list(tags.values()),
    }
    created = await database.fetch(
        statements.CREATE_RUN,
        new_id,
        await database.permit_experiment("create run", experiment),
        run_name,
        user,
        row["start_time"],
        row["tag_keys"],
        row["tag_values"],
    )
    if not created:
        raise NotHot
    audit.add(experiment=str(experiment), run=new_id)
    return answer.created_run_answer({**row, "artifact_uri": created[0]["artifact_uri"]})


async def update_run(database: Database, body: bytes) -> str:
    fields = body_fields(body, _RUN | {"status", "end_time"})
    status = fields.get("status")
    end_time = integer(fields["end_time"]) if "end_time" in fields else None
    if not (status is None or (type(status) is str and status in _STATUSES)):
        raise NotHot
    run = await database.permit_run("update run", run_id(fields))
    rows = await database.fetch(statements.UPDATE_RUN, run, status, end_time)
    return answer.run_info_answer(_only_row(rows))


async def get_run(database: Database, query: bytes) -> str:
    run = await database.permit_run("read run", run_id(query_fields(query, _RUN)))
    rows = await database.fetch(statements.GET_RUN, run)
    row, size = _only_row(rows), _size(rows)
    links = await _links(database, rows, models_read=True)
    return await _text(size, answer.run_answer, row, links)


async def search_runs(database: Database, body: bytes) -> str:
    fields = body_fields(
        body,
        {"experiment_ids", "filter", "run_view_type", "max_results", "order_by", "page_token"},
    )
    count = integer(fields.get("max_results", 1000), lowest=1, highest=LARGEST_SEARCH)
    given = _list(fields, "experiment_ids", MOST_EXPERIMENTS)
    experiments = [experiment_id(one) for one in given]
    first = offset(fields.get("page_token", ""))
    view = fields.get("run_view_type", "ACTIVE_ONLY")
    if view not in _VIEWS:
        raise NotHot
    search = database.searches.search(
        fields.get("filter", ""),
        tuple(_list(fields, "order_by", MOST_TERMS)),
        view,
    )
    await database.permit_search(experiments)
    values = search.values(experiment_ids=experiments, offset=first, limit=count + 1)
    try:
        rows = await database.fetch(search.statement, *values)
    except TOO_SLOW:
        database.searches.leave_to_mlflow(search)
        raise
    size = _size(rows)
    token = None
    if len(rows) > count:
        rows, token = rows[:count], page_token(first + count)
    links = await _links(database, rows, models_read=False)
    return await _text(size, answer.runs_answer, rows, links, token)


async def get_history(database: Database, query: bytes) -> str:
    fields = query_fields(query, _RUN | {"metric_key", "max_results", "page_token"})
    key = text(fields["metric_key"], LONGEST_KEY)
    if not key or not fields["max_results"].isdecimal():
        raise NotHot
    count = integer(int(fields["max_results"]), lowest=1, highest=LARGEST_PAGE)
    first = offset(fields.get("page_token", ""))
    run = await database.permit_run("read run", run_id(fields))
    rows = await database.fetch(statements.GET_HISTORY, run, key, count + 1, first)
    token = None
    if len(rows) > count:
        rows, token = rows[:count], page_token(first + count)
    return await _text(len(rows) * ENTRY_SIZE, answer.history_answer, rows, key, token)


async def get_experiment(database: Database, query: bytes) -> str:
    given = query_fields(query, {"experiment_id"})["experiment_id"]
    experiment = await database.permit_experiment("read experiment", experiment_id(given))
    rows = await database.fetch(statements.GET_EXPERIMENT, experiment)
    return answer.experiment_answer(_only_row(rows))


async def get_experiment_by_name(database: Database, query: bytes) -> str:
    given = query_fields(query, {"experiment_name"})["experiment_name"]
    rows = await database.fetch(statements.GET_EXPERIMENT_BY_NAME, text(given, LONGEST_EXPERIMENT))
    row = _only_row(rows)
    await database.permit_experiment("read experiment", row["experiment_id"])
    return answer.experiment_answer(row)


ROUTES: Mapping[tuple[str, str], Route] = {
    (method, f"/{prefix}/2.0/mlflow/{path}"): route
    for prefix in ("api", "ajax-api")
    for method, path, route in (
        ("POST", "runs/log-metric", log_metric),
        ("POST", "runs/log-parameter", log_param),
        ("POST", "runs/set-tag", set_tag),
        ("POST", "runs/log-batch", log_batch),
        ("POST", "runs/create", create_run),
        ("POST", "runs/update", update_run),
        ("GET", "runs/get", get_run),
        ("POST", "runs/search", search_runs),
        ("GET", "metrics/get-history", get_history),
        ("GET", "experiments/get", get_experiment),
        ("GET", "experiments/get-by-name", get_experiment_by_name),
    )
}
"""By method and path."""

NOT_REPEATABLE = frozenset({create_run})
"""Routes that MLflow must not handle after a statement whose outcome is unknown."""


async def _text(size: int, write: Callable[[*Ts], str], *args: *Ts) -> str:
    """Write a response, in a thread if that would block the event loop for long.

    `size` is the number of bytes from the database.
    """
    return write(*args) if size <= INLINE else await asyncio.to_thread(write, *args)


def _size(rows: Sequence[Row]) -> int:
    """Returns the bytes in a result; one that is too large has no size and no values."""
    size: int | None = rows[0]["size"] if rows else 0
    if size is None:
        raise NotHot
    return size


async def _written(database: Database, statement: str, *values: object) -> str:
    """Run a statement that returns a row if it has written."""
    _only_row(await database.fetch(statement, *values))
    return answer.EMPTY


def _is_admin() -> bool:
    caller = CALLER.get()
    return caller is not None and caller.is_admin


def _only_row(rows: Sequence[Row]) -> Row:
    if len(rows) != 1:
        raise NotHot
    return rows[0]


def _list(fields: Fields, key: str, most: int) -> Sequence[Any]:
    given = fields.get(key, [])
    if type(given) is not list or len(given) > most:
        raise NotHot
    return given


def _tag(key: object, value: object) -> tuple[str, str]:
    # With accounts, nobody may change a run's user.
    if key == RUN_NAME or (key == RUN_USER and CALLER.get()):
        raise NotHot
    return name(key), text(value, LONGEST_TAG)


async def _links(database: Database, rows: Sequence[Row], *, models_read: bool) -> LinksByRun:
    """Returns the datasets and models of the runs that have some.

    In a search, MLflow leaves out the models that a run has read.
    """
    found: LinksByRun = {}
    linked = [row["run_uuid"] for row in rows if row["linked"]]
    if not linked:
        return found
    for row in await _few(database, statements.GET_DATASETS, linked):
        if row["size"] > statements.LARGEST_RESULT:
            raise NotHot
        links = found.setdefault(row["destination_id"], Links())
        _, tags = links.datasets.setdefault(row["dataset_uuid"], (row, []))
        if row["tag_key"] is not None:
            tags.append((row["tag_key"], row["tag_value"]))
    for row in await _few(database, statements.GET_MODELS, linked):
        links = found.setdefault(row["source_id"], Links())
        if row["destination_type"] == "MODEL_OUTPUT":
            links.models_written.append((row["destination_id"], row["step"]))
        elif models_read:
            links.models_read.append(row["destination_id"])
    return found


async def _few(database: Database, statement: str, run_ids: Sequence[str]) -> Sequence[Row]:
    rows = await database.fetch(statement, run_ids)
    if len(rows) > statements.MOST_LINKS:
        raise NotHot
    return rows
