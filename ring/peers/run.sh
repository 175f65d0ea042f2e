#!/bin/sh
# Measures package ring beside its peers and prints benchstat's table, a column
# for each queue, and the ratios to chan. One whole pass over all benchmarks
# follows another, so that what changes on the machine meanwhile changes them all.
#
#   run.sh [-short] [-passes N] [-o FILE]
#
# -short runs every benchmark once, which shows that they work and nothing else.
# For some of them: go test -bench REGEXP [-tags ringchaos] in this directory.
# Raw results are appended to FILE. If none is given they go to bin/ring-bench.txt, begun
# anew; those of -short nowhere.
set -eu
usage() { sed -n '2,/^set/{s/^# \{0,1\}//p;}' "$0" >&2; exit 2; }
passes=6 short= time=40ms pushes=2000x stalls=30000x out=
while [ $# -gt 0 ]; do
    case $1 in
    -short) passes=1 short=1 time=1x pushes=1x stalls=1x; shift ;;
    -passes) passes=${2:?"-passes needs a number"}; shift 2 ;;
    -o) out=${2:?"-o needs a file"}; shift 2 ;;
    *) usage ;;
    esac
done
case $passes in '' | *[!0-9]* | 0) echo "run.sh: -passes $passes: want a number from 1" >&2; exit 2 ;; esac
case $out in
/* | '') ;;
*) out=$PWD/$out ;;
esac

cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
GO=${GO:-go}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
if [ -z "$out" ] && [ -n "$short" ]; then
    out=$tmp/raw
elif [ -z "$out" ]; then
    mkdir -p "$root/bin"
    out=$root/bin/ring-bench.txt
    : >"$out"
fi
$GO test -c -o "$tmp/peers" .
$GO test -c -tags ringchaos -o "$tmp/stalls" . # with hooks: for BenchmarkStall alone

i=0
while [ $i -lt "$passes" ]; do
    i=$((i + 1))
    echo "pass $i of $passes" >&2
    # Each pass runs a copy of its own: which pages of memory a program is loaded into can double
    # the time of short benchmarks, for as long as that file is cached.
    for p in peers stalls; do cp "$tmp/$p" "$tmp/copy" && mv "$tmp/copy" "$tmp/$p"; done
    {
        "$tmp/peers" -test.run '^$' -test.bench "^Benchmark(Calibration|Throughput|Overload)$" -test.benchtime $time
        "$tmp/peers" -test.run '^$' -test.bench '^BenchmarkHandoff$' -test.benchtime $pushes
        "$tmp/stalls" -test.run '^$' -test.bench '^BenchmarkStall$' -test.benchtime $stalls
    } >"$tmp/pass" || { cat "$tmp/pass" >&2; echo "run.sh: a benchmark failed, see above" >&2; exit 1; }
    cat "$tmp/pass" >>"$out"
done

(cd "$root" && $GO tool benchstat -col /queue "$out")
echo
echo "# medians, and how many times better than the first column"
$GO run ./ratios "$out"
