"""The SQL statements of the hot routes: one for each write, one for each read.

The tables are those of MLflow's schema at `SCHEMA_REVISION`.
"""

SCHEMA_REVISION = "dc11669786a5"
"""The revision of MLflow's schema that these statements were tested with. With any other one,
MLflow handles every request."""

_ACTIVE = """
    SELECT run_uuid, experiment_id FROM runs WHERE run_uuid = $1 AND lifecycle_stage = 'active'"""

# A latest metric is replaced by one with a higher step; with the same step, by a later one; with
# the same time, by a larger one.
_KEEP_LATEST = """
    ON CONFLICT (key, run_uuid) DO UPDATE SET value = EXCLUDED.value,
      timestamp = EXCLUDED.timestamp, step = EXCLUDED.step, is_nan = EXCLUDED.is_nan
    WHERE (EXCLUDED.step, EXCLUDED.timestamp, EXCLUDED.value) > (old.step, old.timestamp, old.value)
"""

EXPERIMENT_OF_RUN = "SELECT experiment_id FROM runs WHERE run_uuid = $1"

LOG_METRIC = f"""
  WITH run AS ({_ACTIVE}),
  history AS (
    INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
    SELECT $2, $3, $4, $5, $6, run_uuid FROM run ON CONFLICT DO NOTHING),
  latest AS (
    INSERT INTO latest_metrics AS old (key, value, timestamp, step, is_nan, run_uuid)
    SELECT $2, $3, $4, $5, $6, run_uuid FROM run {_KEEP_LATEST})
  SELECT 1 FROM run"""

LOG_PARAM = f"""
  WITH run AS ({_ACTIVE}),
  new AS (
    INSERT INTO params (key, value, run_uuid) SELECT $2, $3, run_uuid FROM run
    ON CONFLICT DO NOTHING RETURNING 1)
  SELECT 1 FROM run WHERE EXISTS (SELECT FROM new)
    OR EXISTS (SELECT FROM params WHERE run_uuid = $1 AND key = $2 AND value = $3)"""
"""Returns no row if the parameter has another value."""

SET_TAG = f"""
  WITH run AS ({_ACTIVE}),
  tag AS (
    INSERT INTO tags (key, value, run_uuid) SELECT $2, $3, run_uuid FROM run
    ON CONFLICT (key, run_uuid) DO UPDATE SET value = EXCLUDED.value)
  SELECT 1 FROM run"""

_WITH_METRICS = f"""given AS (
    SELECT * FROM unnest($2::text[], $3::float8[], $4::int8[], $5::int8[], $6::bool[])
    WITH ORDINALITY AS given (key, value, timestamp, step, is_nan, nth)),
  history AS (
    INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
    SELECT key, value, timestamp, step, is_nan, run_uuid FROM given, run ON CONFLICT DO NOTHING),
  latest AS (
    INSERT INTO latest_metrics AS old (key, value, timestamp, step, is_nan, run_uuid)
    SELECT key, value, timestamp, step, is_nan, run_uuid FROM (
      SELECT DISTINCT ON (key) *, min(nth) OVER (PARTITION BY key) AS first FROM given
      ORDER BY key, step DESC, timestamp DESC, value DESC, nth) AS newest, run
    ORDER BY first {_KEEP_LATEST})"""
"""Writes the metrics in $2 to $6 to the run in the query `run`."""

LOG_METRICS = f"""
  WITH run AS ({_ACTIVE}),
  {_WITH_METRICS}
  SELECT 1 FROM run"""

LOG_BATCH = f"""
  WITH active AS ({_ACTIVE}),
  given_params AS (SELECT * FROM unnest($7::text[], $8::text[]) AS given (key, value)),
  present AS (
    SELECT params.key, params.value = given_params.value AS same
    FROM params JOIN given_params USING (key) WHERE run_uuid = $1),
  run AS (SELECT * FROM active WHERE NOT EXISTS (SELECT FROM present WHERE NOT same)),
  new_params AS (
    INSERT INTO params (key, value, run_uuid)
    SELECT key, value, run_uuid FROM given_params, run WHERE key NOT IN (SELECT key FROM present)),
  {_WITH_METRICS},
  model AS (
    INSERT INTO logged_model_metrics (model_id, metric_name, metric_timestamp_ms, metric_step,
      metric_value, experiment_id, run_id, dataset_name, dataset_digest)
    SELECT model_id, key, timestamp, step, value, experiment_id, run_uuid, name, digest
    FROM unnest($2::text[], $3::float8[], $4::int8[], $5::int8[], $11::text[], $12::text[],
      $13::text[]) AS given (key, value, timestamp, step, model_id, name, digest), run
    WHERE model_id IS NOT NULL),
  tag AS (
    INSERT INTO tags (key, value, run_uuid)
    SELECT key, value, run_uuid FROM unnest($9::text[], $10::text[]) AS given (key, value), run
    ON CONFLICT (key, run_uuid) DO UPDATE SET value = EXCLUDED.value)
  SELECT 1 FROM run"""
"""Writes nothing, and returns no row, if a parameter has another value. If one is written at the
same moment, or a logged model has the metric already, the statement fails with a unique violation.
$11 to $13 have each metric's logged model and dataset, or null."""

CREATE_RUN = """
  WITH run AS (
    INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status,
      start_time, source_version, lifecycle_stage, artifact_uri, experiment_id)
    SELECT $1::text, $3::text, 'UNKNOWN', '', '', $4::text, 'RUNNING', $5::int8, '', 'active',
      artifact_location || '/' || $1::text || '/artifacts', experiment_id
    FROM experiments WHERE experiment_id = $2 AND lifecycle_stage = 'active'
      AND artifact_location ~ '^(mlflow-artifacts:/|gs://)[A-Za-z0-9._/-]*[A-Za-z0-9]$'
    RETURNING run_uuid, artifact_uri),
  tag AS (
    INSERT INTO tags (key, value, run_uuid)
    SELECT key, value, run_uuid FROM run, unnest($6::text[], $7::text[])
    WITH ORDINALITY AS given (key, value, nth) ORDER BY nth)
  SELECT artifact_uri FROM run"""

RUN = """run_uuid, name, experiment_id, user_id, status, start_time, end_time, artifact_uri,
  lifecycle_stage"""

UPDATE_RUN = f"""
  UPDATE runs SET status = coalesce($2, status), end_time = coalesce($3, end_time)
  WHERE run_uuid = $1 AND lifecycle_stage = 'active' AND name <> '' RETURNING {RUN}"""

RUN_SIZE, ENTRY_SIZE = 500, 40
"""Bytes of a run's own columns, and of a metric, parameter or tag without its key and text."""

_VALUES = f"""
  LEFT JOIN LATERAL (
    SELECT array_agg(key) AS metric_keys, array_agg(value) AS metric_values,
      array_agg(timestamp) AS timestamps, array_agg(step) AS steps, array_agg(is_nan) AS nans,
      sum(octet_length(key) + {ENTRY_SIZE}) AS metrics_size
    FROM latest_metrics WHERE run_uuid = run.run_uuid) AS metrics ON true
  LEFT JOIN LATERAL (
    SELECT array_agg(key) AS param_keys, array_agg(value) AS param_values,
      sum(octet_length(key) + octet_length(value) + {ENTRY_SIZE}) AS params_size
    FROM params WHERE run_uuid = run.run_uuid) AS params ON true
  LEFT JOIN LATERAL (
    SELECT array_agg(key) AS tag_keys, array_agg(value) AS tag_values,
      sum(octet_length(key) + octet_length(value) + {ENTRY_SIZE}) AS tags_size
    FROM tags WHERE run_uuid = run.run_uuid) AS tags ON true"""

MOST_LINKS = 1000
"""Rows for the datasets, their tags and the models of the runs in one result."""

LARGEST_RESULT = 1_000_000
"""Bytes of the keys and values in one result. A larger one has no values, and MLflow handles the
request within its own limits."""


def _unless_too_large(size: str, *names: str) -> str:
    """Returns columns that are null if the column `size` exceeds LARGEST_RESULT."""
    return ", ".join(
        f"CASE WHEN {size} <= {LARGEST_RESULT} THEN {name} END AS {name}" for name in names
    )


_COLUMNS = (
    "size",
    "metric_keys",
    "metric_values",
    "timestamps",
    "steps",
    "nans",
    "param_keys",
    "param_values",
    "tag_keys",
    "tag_values",
)


def with_values(runs: str) -> str:
    """Returns a statement that adds metrics, parameters and tags to each run that `runs` selects.

    `runs` is a query of the columns in `RUN`, in the order of the result. If the result would
    exceed `LARGEST_RESULT`, its column `size` is null.
    """
    return f"""
      SELECT {RUN}, linked, {_unless_too_large("size", *_COLUMNS)}
      FROM (
        SELECT *, sum({RUN_SIZE} + coalesce(metrics_size, 0) + coalesce(params_size, 0)
            + coalesce(tags_size, 0)) OVER () AS size,
          EXISTS (SELECT FROM inputs WHERE destination_type = 'RUN'
            AND destination_id = run_uuid)
          OR EXISTS (SELECT FROM inputs WHERE source_type IN ('RUN_INPUT', 'RUN_OUTPUT')
            AND source_id = run_uuid) AS linked
        FROM (SELECT *, row_number() OVER () AS nth FROM ({runs}) AS runs) AS run
        {_VALUES}
      ) AS found ORDER BY nth"""


GET_RUN = with_values(f"SELECT {RUN} FROM runs WHERE run_uuid = $1")

GET_DATASETS = f"""
  SELECT destination_id, dataset_uuid, name, digest, source_type, size, tag_key, tag_value,
    {_unless_too_large("size", "source", "schema", "profile")}
  FROM (
    SELECT destination_id, dataset_uuid, datasets.name, digest,
      dataset_source_type AS source_type, dataset_source AS source, dataset_schema AS schema,
      dataset_profile AS profile, input_tags.name AS tag_key, input_tags.value AS tag_value,
      sum(octet_length(dataset_source) + coalesce(octet_length(dataset_schema), 0)
        + coalesce(octet_length(dataset_profile), 0) + 500) OVER () AS size
    FROM inputs JOIN datasets ON source_id = dataset_uuid LEFT JOIN input_tags USING (input_uuid)
    WHERE destination_type = 'RUN' AND destination_id = ANY($1::text[])
    ORDER BY destination_id) AS found
  LIMIT {MOST_LINKS + 1}"""

GET_MODELS = f"""
  SELECT source_id, destination_type, destination_id, step FROM inputs
  WHERE source_id = ANY($1::text[])
    AND (source_type, destination_type) IN
      (('RUN_INPUT', 'MODEL_INPUT'), ('RUN_OUTPUT', 'MODEL_OUTPUT'))
  LIMIT {MOST_LINKS + 1}"""

GET_HISTORY = """
  SELECT value, is_nan, timestamp, step FROM metrics WHERE run_uuid = $1 AND key = $2
  ORDER BY timestamp, step, value LIMIT $3 OFFSET $4"""

_EXPERIMENT = f"""
  SELECT experiment_id, name, artifact_location, lifecycle_stage, last_update_time, creation_time,
    workspace, tags_size, {_unless_too_large("tags_size", "tag_keys", "tag_values")}
  FROM experiments AS one LEFT JOIN LATERAL (
    SELECT array_agg(key) AS tag_keys, array_agg(value) AS tag_values,
      sum(octet_length(key) + octet_length(value) + {ENTRY_SIZE}) AS tags_size
    FROM experiment_tags WHERE experiment_id = one.experiment_id) AS tags ON true"""

GET_EXPERIMENT = f"{_EXPERIMENT} WHERE experiment_id = $1"

GET_EXPERIMENT_BY_NAME = f"{_EXPERIMENT} WHERE name = $1"
