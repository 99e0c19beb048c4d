"""Writes MLflow's JSON responses from database rows, byte for byte as MLflow writes them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from tracking_server.hot_routes.request import NotHot
from tracking_server.hot_routes.statements import LARGEST_RESULT

EMPTY = "{}"

_LINE_0, _LINE_1, _LINE_2 = "\n", "\n  ", "\n    "
"""Line breaks with the indentation of the outermost objects."""

Row = Mapping[str, Any]


@dataclass(slots=True)
class Links:
    """What a run is linked to: the datasets and models that it read, the models that it wrote.

    Each dataset has its row and its tags; each written model its id and step.
    """

    datasets: dict[str, tuple[Row, list[tuple[str, str]]]] = field(default_factory=dict)
    models_read: list[str] = field(default_factory=list)
    models_written: list[tuple[str, int]] = field(default_factory=list)


LinksByRun = dict[str, Links]

_NO_LINKS = Links()


def run_answer(row: Row, links: LinksByRun) -> str:
    """Returns the response of runs/get."""
    return _object([f'"run": {_run(row, links, _LINE_1)}'], _LINE_0)


def created_run_answer(row: Row) -> str:
    """Returns the response of runs/create, which has no outputs."""
    return _object([f'"run": {_object(_run_fields(row, _NO_LINKS, _LINE_2), _LINE_1)}'], _LINE_0)


def run_info_answer(row: Row) -> str:
    """Returns the response of runs/update."""
    return _object([f'"run_info": {_info(row, _LINE_1)}'], _LINE_0)


def runs_answer(rows: Iterable[Row], links: LinksByRun, token: str | None) -> str:
    """Returns the response of runs/search. `token` is that of the next page, if there is one."""
    runs = [_run(row, links, _LINE_2) for row in rows]
    return _object(_page("runs", runs, token), _LINE_0)


def history_answer(rows: Sequence[Row], key: str, token: str | None) -> str:
    """Returns the response of metrics/get-history."""
    metrics = [
        _metric(quoted(key), row["value"], row["is_nan"], row["timestamp"], row["step"], _LINE_2)
        for row in rows
    ]
    return _object(_page("metrics", metrics, token), _LINE_0)


def experiment_answer(row: Row) -> str:
    """Returns the response of experiments/get and experiments/get-by-name."""
    if (row["tags_size"] or 0) > LARGEST_RESULT:
        raise NotHot
    fields = [
        f'"experiment_id": "{row["experiment_id"]}"',
        f'"name": {quoted(row["name"])}',
        f'"artifact_location": {quoted(_given(row["artifact_location"]))}',
        f'"lifecycle_stage": {quoted(row["lifecycle_stage"])}',
    ]
    if row["last_update_time"]:
        fields.append(f'"last_update_time": {row["last_update_time"]}')
    if row["creation_time"]:
        fields.append(f'"creation_time": {row["creation_time"]}')
    if row["tag_keys"]:
        fields.append(f'"tags": {_pairs(row["tag_keys"], row["tag_values"], _LINE_2)}')
    if row["workspace"] is not None:
        fields.append(f'"workspace": {quoted(row["workspace"])}')
    return _object([f'"experiment": {_object(fields, _LINE_1)}'], _LINE_0)


def _object(fields: Sequence[str], line: str) -> str:
    """Returns a JSON object; `line` is the line break with the indentation of its last line."""
    if not fields:
        return EMPTY
    inside = line + "  "
    return f"{{{inside}{f',{inside}'.join(fields)}{line}}}"


def _array(entries: Sequence[str], line: str) -> str:
    inside = line + "  "
    return f"[{inside}{f',{inside}'.join(entries)}{line}]"


def _page(name: str, entries: Sequence[str], token: str | None) -> list[str]:
    fields = [f'"{name}": {_array(entries, _LINE_1)}'] if entries else []
    return [*fields, f'"next_page_token": {quoted(token)}'] if token else fields


def _run(row: Row, links: LinksByRun, line: str) -> str:
    inside = line + "  "
    found = links.get(row["run_uuid"], _NO_LINKS)
    outputs = f'"outputs": {_object(_outputs(found, inside + "  "), inside)}'
    return _object([*_run_fields(row, found, inside), outputs], line)


def _run_fields(row: Row, links: Links, line: str) -> list[str]:
    return [
        f'"info": {_info(row, line)}',
        f'"data": {_object(_data(row, line + "  "), line)}',
        f'"inputs": {_object(_inputs(links, line + "  "), line)}',
    ]


def _info(row: Row, line: str) -> str:
    run_id = quoted(row["run_uuid"])
    # For a run without a name, MLflow looks for one in its tags.
    if not row["name"]:
        raise NotHot
    fields = [
        f'"run_uuid": {run_id}',
        f'"experiment_id": "{row["experiment_id"]}"',
        f'"run_name": {quoted(row["name"])}',
        f'"user_id": {quoted(_given(row["user_id"]))}',
        f'"status": "{row["status"]}"',
        f'"start_time": {_given(row["start_time"])}',
    ]
    if row["end_time"]:
        fields.append(f'"end_time": {row["end_time"]}')
    if row["artifact_uri"]:
        fields.append(f'"artifact_uri": {quoted(row["artifact_uri"])}')
    fields += (f'"lifecycle_stage": "{row["lifecycle_stage"]}"', f'"run_id": {run_id}')
    return _object(fields, line)


def _data(row: Row, line: str) -> list[str]:
    fields = []
    if keys := row["metric_keys"]:
        inside = line + "  "
        metrics = [
            _metric(quoted(key), value, is_nan, timestamp, step, inside)
            for key, value, is_nan, timestamp, step in zip(
                keys,
                row["metric_values"],
                row["nans"],
                row["timestamps"],
                row["steps"],
                strict=True,
            )
        ]
        fields.append(f'"metrics": {_array(metrics, line)}')
    if keys := row["param_keys"]:
        fields.append(f'"params": {_pairs(keys, row["param_values"], line)}')
    if keys := row["tag_keys"]:
        fields.append(f'"tags": {_pairs(keys, row["tag_values"], line)}')
    return fields


def _metric(key: str, value: float, is_nan: bool, timestamp: int, step: int, line: str) -> str:
    if timestamp is None:
        raise NotHot
    number = '"NaN"' if is_nan else repr(value)
    return (
        f'{{{line}  "key": {key},{line}  "value": {number},{line}  "timestamp": {timestamp},'
        f'{line}  "step": {step}{line}}}'
    )


def _pairs(keys: Sequence[str], values: Sequence[str | None], line: str) -> str:
    entry = line + "  "
    field = entry + "  "
    return _array(
        [
            f'{{{field}"key": {quoted(key)},{field}"value": {quoted(_given(value))}{entry}}}'
            for key, value in zip(keys, values, strict=True)
        ],
        line,
    )


def _inputs(links: Links, line: str) -> list[str]:
    fields = []
    if links.datasets:
        inside = line + "  "
        datasets = [
            _object(_dataset(row, tags, inside + "  "), inside)
            for row, tags in links.datasets.values()
        ]
        fields.append(f'"dataset_inputs": {_array(datasets, line)}')
    if links.models_read:
        models = [_object([f'"model_id": {quoted(id_)}'], line + "  ") for id_ in links.models_read]
        fields.append(f'"model_inputs": {_array(models, line)}')
    return fields


def _dataset(row: Row, tags: Sequence[tuple[str, str]], line: str) -> list[str]:
    parts = [
        f'"{name}": {quoted(_given(row[name]))}'
        for name in ("name", "digest", "source_type", "source")
    ]
    parts += [f'"{name}": {quoted(row[name])}' for name in ("schema", "profile") if row[name]]
    fields = []
    if tags:
        keys, values = zip(*tags, strict=True)
        fields.append(f'"tags": {_pairs(keys, values, line)}')
    return [*fields, f'"dataset": {_object(parts, line)}']


def _outputs(links: Links, line: str) -> list[str]:
    if not links.models_written:
        return []
    models = [
        _object([f'"model_id": {quoted(id_)}', f'"step": {step}'], line + "  ")
        for id_, step in links.models_written
    ]
    return [f'"model_outputs": {_array(models, line)}']


def _given(value: Any) -> Any:
    """Returns a value that MLflow's messages require."""
    if value is None:
        raise NotHot
    return value
