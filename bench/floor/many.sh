#!/bin/sh
# How near the engine comes to bare supervisors in C with many listeners: the same targets for all,
# in interleaved rounds, medians.
#
#   many.sh [LISTENERS...]      4 16 64
#
#   ROUNDS=10 SECONDS_EACH=1 THREADS=1
set -eu
cd "$(dirname "$0")"
make -s
mkdir -p ../../bin
# By the profile of the command, as users have it.
go build -pgo=../../cmd/unknot/default.pgo -o ../../bin/supervise ./supervise
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
engine() { # PATH LISTENERS [FLAGS...]
    path=$1 n=$2
    shift 2
    ../../bin/supervise -path "$path" -listeners "$n" "$@" "$work/socket" &
    until [ -S "$work/socket" ]; do sleep 0.01; done
    ./many "$n" "${THREADS:-1}" "connect:$work/socket" 0 "${SECONDS_EACH:-1}"
    wait $!
}
for round in $(seq "${ROUNDS:-10}"); do
    for n in ${*:-4 16 64}; do
        ./many "$n" "${THREADS:-1}" thread 1 "${SECONDS_EACH:-1}" | sed 's/^/C-thread /'
        ./many "$n" "${THREADS:-1}" pool:2:pin 1 "${SECONDS_EACH:-1}" | sed 's/^/C-pool /'
        for p in inline queue; do engine $p "$n" ${FLAGS:-} | sed "s/^/engine-$p /"; done
    done
done | awk '
function num(s) { sub(/\/s/, "", s); return s + 0 }
{ split($2, l, "="); key = l[2] " " $1; if (!(key in n)) order[++keys] = key; i = ++n[key]
  for (f = 1; f <= NF; f++) { if ($f ~ /sync=/) rate[key, i] = num($(f + 1)); if ($f == "slowest") slow[key, i] = num($(f + 1)); if ($f == "p99") p99[key, i] = $(f + 1); if ($f == "p99.9") p999[key, i] = $(f + 1) } }
function med(a, key,   i, j, t, m, v) { m = n[key]; for (i = 1; i <= m; i++) v[i] = a[key, i]
  for (i = 2; i <= m; i++) for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
  return m % 2 ? v[(m + 1) / 2] : (v[m / 2] + v[m / 2 + 1]) / 2 }
END { printf "%-9s %-13s %6s %10s %10s %9s %13s\n", "listeners", "supervisor", "rounds", "calls/s", "slowest/s", "p99 us", "worst p99.9"
  for (k = 1; k <= keys; k++) { split(order[k], w, " "); printf "%-9s %-13s %6d %10.0f %10.0f %9.0f %13.0f\n", w[1], w[2], n[order[k]], med(rate, order[k]), med(slow, order[k]), med(p99, order[k]), med(p999, order[k]) } }'
