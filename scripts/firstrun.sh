#!/bin/sh
# A short storm on every engine, into a results file of its own: what `make run`
# shows a stranger. It is a first impression, not a record (see results/).
set -eu
cd "$(dirname "$0")/.."
machine=$(bin/unknot version --machine)
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo nocommit)
file=results/$machine/local-$(date -u +%Y%m%dT%H%M%SZ)-$commit.txt
mkdir -p "results/$machine"
bin/unknot bench --engine unknot,chan,seed,bare --path inline,queue --targets 1,16 \
    --duration 400ms --count 6 -o "$file" >/dev/null
echo "results: $file"
echo "to compare the engines: go tool benchstat -col /engine -row .name,/path,/targets $file"
