#!/bin/sh
# Two supervisors, a real Prometheus on loopback, and what the rules say of both: with classic buckets, then with
# native ones. It takes UNKNOT (or unknot in PATH), prometheus, curl; half a minute. KEEP=1 leaves the second
# Prometheus running until Enter.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
unknot=${UNKNOT:-unknot}
for tool in prometheus curl "$unknot"; do
    command -v "$tool" >/dev/null || { echo "try.sh: no $tool in PATH (Debian: apt install prometheus curl; UNKNOT=path of unknot)" >&2; exit 1; }
done
port=${PORT:-19390}
dir=$(mktemp -d)
pids=
ends() {
    trap - EXIT
    for p in $pids; do kill "$p" 2>/dev/null || :; done
    wait 2>/dev/null || :
    rm -rf "$dir"
}
trap ends EXIT
trap 'exit 1' INT TERM

# A call each few ms from some, as fast as they can from others: their waits differ.
"$unknot" run -q --path queue --queue 64 --workers 1 --status "127.0.0.1:$((port + 1))" -- \
    sh -c 'exec 2>/dev/null; while :; do cat /etc/hostname /etc/passwd /etc/group >/dev/null; done' &
pids="$pids $!"
"$unknot" run -q --path queue --queue 64 --workers 1 --status "127.0.0.1:$((port + 2))" -- \
    sh -c 'exec 2>/dev/null; for i in 1 2 3 4; do (while :; do cat /etc/hostname /etc/passwd /etc/group >/dev/null; done) & done; wait' &
pids="$pids $!"

cat >"$dir/prometheus.yaml" <<END
global: {scrape_interval: 500ms, evaluation_interval: 500ms}
rule_files: [$here/rules.yaml]
scrape_configs:
  - job_name: unknot
    static_configs: [{targets: ["127.0.0.1:$((port + 1))", "127.0.0.1:$((port + 2))"]}]
END

query() {
    curl -sf --max-time 10 --data-urlencode "query=$1" "http://127.0.0.1:$port/api/v1/query" && echo
}
# values are those of a query, a line for each series; nothing if there is none, or no number yet.
values() {
    query "$1" | sed 's/{"metric"/\n&/g; s/"__name__":"[^"]*",*//g' | sed -n 's/.*"metric":{\(.*\)},"value":\[[^,]*,"\([0-9.e+-]*\)"\].*/\2 \1/p'
}

asks() { # by Prometheus' flags
    prometheus --config.file="$dir/prometheus.yaml" --storage.tsdb.path="$dir/data$#" --web.listen-address="127.0.0.1:$port" \
        --log.level=warn "$@" >"$dir/log" 2>&1 &
    server=$!
    pids="$pids $server"
    n=0
    until [ "$(values 'unknot:wait_seconds:p99_5m and on() count(instance:unknot_wait_seconds:p99_5m) == 2' 2>/dev/null | wc -l)" = 1 ] && [ $n -gt 20 ]; do
        n=$((n + 1))
        if [ $n -gt 120 ] || ! kill -0 "$server" 2>/dev/null; then
            echo "try.sh: the rules say nothing of two daemons:" >&2
            cat "$dir/log" >&2
            exit 1
        fi
        sleep 0.5
    done
    echo "up                                $(values 'sum(up{job="unknot"})')"
    echo "calls/s, all                      $(values unknot:received:rate5m)"
    echo "p99 wait, all                     $(values unknot:wait_seconds:p99_5m) s"
    values instance:unknot_wait_seconds:p99_5m | sed 's/.*/p99 wait of each                  &/'
    echo "series of buckets                 $(values 'count(unknot_wait_seconds_bucket) or vector(0)')"
    echo "native histograms                 $(values 'count(histogram_count(unknot_wait_seconds)) or vector(0)')"
    echo "alerts                            $(values 'count(ALERTS{alertstate="firing"}) or vector(0)')"
}

echo "== classic buckets"
asks
kill "$server"
wait "$server" 2>/dev/null || :
echo "== native buckets"
asks --enable-feature=native-histograms
if [ -n "${KEEP:-}" ]; then
    echo "http://127.0.0.1:$port/graph?g0.expr=unknot:wait_seconds:p99_5m&g0.tab=0&g0.range_input=5m (Enter ends)"
    read -r _
fi
