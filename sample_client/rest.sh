#!/bin/sh
# Plain REST with curl: an experiment, a run, a metric, a file up and down. Requires curl 7.76+.
# https://mlflow.org/docs/latest/api_reference/rest-api.html
set -eu
stop() { echo "$*" >&2 && exit 1; }
for name in MLFLOW_TRACKING_URI MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD; do
    eval "value=\${$name:-}"
    [ -n "$value" ] || stop "$name is not set: ask who runs the server, or source .local/env"
done
printf '%s\n' "$MLFLOW_TRACKING_URI" |
    grep -Eq '^(https://|http://(localhost|127\.0\.0\.1)(:[0-9]+)?(/|$))' ||
    stop "MLFLOW_TRACKING_URI=$MLFLOW_TRACKING_URI lacks https:// (http:// only on localhost)"
api=$MLFLOW_TRACKING_URI/api/2.0
experiment=${MLFLOW_EXPERIMENT_NAME:-gallery}

# Quotes a value as a string for JSON and for curl's settings.
quoted() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"; }

# curl reads the password from standard input: all users of a computer can see arguments.
call() {
    printf 'user = %s\n' "$(quoted "$MLFLOW_TRACKING_USERNAME:$MLFLOW_TRACKING_PASSWORD")" |
        curl --config - --silent --show-error --fail-with-body --max-time 60 "$@"
}
post() { call --header "Content-Type: application/json" --data "$2" "$api/mlflow/$1"; }
field() { sed -n 's/.*"'"$1"'": *"\{0,1\}\([^",}]*\).*/\1/p' | head -n 1; }

said=$(call --write-out " %{http_code}" "$MLFLOW_TRACKING_URI/version" 2>&1) || true
status=${said##* }
case $status in
    200) echo "MLflow ${said% *}" ;;
    30?) stop "$MLFLOW_TRACKING_URI sends you elsewhere ($status): were you given https://?" ;;
    *) stop "$MLFLOW_TRACKING_URI says: $(echo "${said% 000}" | tr -s '[:space:]' ' ')" ;;
esac

found=$(call --get --data-urlencode "experiment_name=$experiment" \
    "$api/mlflow/experiments/get-by-name" 2>/dev/null) ||
    found=$(post experiments/create "{\"name\": $(quoted "$experiment")}")
id=$(echo "$found" | field experiment_id)
now=$(date +%s)000
run=$(post runs/create "{\"experiment_id\": \"$id\", \"start_time\": $now, \"run_name\": \"rest\"}" |
    field run_id)
post runs/log-parameter "{\"run_id\": \"$run\", \"key\": \"from\", \"value\": \"curl\"}" >/dev/null
post runs/log-metric "{\"run_id\": \"$run\", \"key\": \"loss\", \"value\": 0.25, \"timestamp\": $now}" \
    >/dev/null

files=$MLFLOW_TRACKING_URI/api/2.0/mlflow-artifacts/artifacts/$id/$run/artifacts
notes=$(mktemp)
trap 'rm -f "$notes"' EXIT
echo "sent with curl" >"$notes"
call --upload-file "$notes" "$files/notes.txt" >/dev/null
post runs/update "{\"run_id\": \"$run\", \"status\": \"FINISHED\", \"end_time\": $(date +%s)000}" >/dev/null

echo "loss $(call "$api/mlflow/metrics/get-history?run_id=$run&metric_key=loss" | field value)"
echo "notes.txt: $(call "$files/notes.txt")"
