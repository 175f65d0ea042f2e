#!/bin/sh
# Measures what results/README.md shows, into results/MACHINE/DATE-COMMIT.txt and the
# files of the same name beside it. cmd/unknot/internal/page makes the page from them.
#
#   results.sh [STEP...]
#
# The steps: throughput latency stages overload listeners floor. Each is kept as soon as it is
# whole, so what was interrupted is continued by the same command; with steps named,
# only those are measured. When all are there the results are written.
#
#   DURATION=500ms   of one repetition
#   COUNT=6          repetitions; fewer have no confidence intervals
#   RATE=2000        calls per second of the open loop
set -eu
cd "$(dirname "$0")/.."
duration=${DURATION:-500ms} count=${COUNT:-6} rate=${RATE:-2000}
all="throughput latency stages overload listeners floor"
for s in "$@"; do
    case " $all " in *" $s "*) ;; *) echo "results.sh: no step $s: there are $all" >&2; exit 2 ;; esac
done

machine=$(bin/unknot version --machine)
commit=$(git rev-parse --short=12 HEAD)
# What was measured is what is published: changes that are not committed show.
[ -z "$(git status --porcelain -- . ':!results')" ] || commit=$commit-dirty
# Steps of other builds or settings do not belong together.
build=$(sha256sum <bin/unknot | cut -c1-12)
work=bin/results/$machine-$build-$duration-$count-$rate
mkdir -p "$work"
trap 'exit 130' INT TERM

# step NAME ARGS... runs unknot with ARGS unless that is done, and keeps what it
# prints, after a head that says what it is.
step() {
    name=$1; shift
    if [ -e "$work/$name.txt" ]; then
        echo "results.sh: $name: is there already" >&2
        return
    fi
    echo "results.sh: $name: unknot $*" >&2
    side=$work/$name.side
    rm -f "$side"
    extra= shown=
    case $name in
    latency) extra="--hdr $side" shown=" --hdr latency.hgrm" ;;
    stages) extra="--stages $side" shown=" --stages stages.json" ;;
    floor) extra="-o $side" ;;
    esac
    # What else the machine does makes an open loop void now and then.
    tries=1
    until bin/unknot "$@" $extra >"$work/$name.raw"; do
        [ $name = latency ] && [ $tries -lt 3 ] || exit 1
        tries=$((tries + 1))
        echo "results.sh: $name: again" >&2
    done
    {
        echo "# step: $name"
        echo "# command: unknot $*$shown"
        echo "# commit: $commit"
        case $name in
        stages) grep '^#' "$work/$name.raw" ;; # its results are those of one traced repetition
        *) cat "$work/$name.raw" ;;
        esac
        echo
    } >"$work/$name.tmp"
    mv "$work/$name.tmp" "$work/$name.txt"
}

storms="--duration $duration --trace off"
for s in ${*:-$all}; do
    case $s in
    throughput) step $s bench --path inline,queue --targets 1,4,16,64,256 --queue 512 --count "$count" $storms ;;
    # As many as 99.9% takes.
    latency) step $s bench --path inline,queue --targets 128 --queue 512 --rate "$rate" --count $((count * 4)) $storms ;;
    stages) step $s bench --path inline,queue --targets 16 --queue 512 --count 1 $storms ;;
    overload) step $s bench --engine unknot,chan,seed --path queue --targets 4,16,64,256 --work 50us --queue 16 --count "$count" $storms ;;
    listeners) step $s bench --path inline,queue --listeners 1,4,16,64 --targets 1 --count "$count" $storms ;;
    floor) step $s calibrate --comparisons 5 --rounds 20 "unknot bench --engine unknot --path inline,queue --targets 1 --duration 200ms --count 1 --trace off" ;;
    esac
done
for s in $all; do
    [ -e "$work/$s.txt" ] || { echo "results.sh: $s is not measured yet: run this again" >&2; exit 0; }
done

# The first step's date is the results'.
date=$(sed -n 's/^# date: \([0-9-]*\)T.*/\1/p' "$work/throughput.txt" | head -1)
base=results/$machine/$date-$commit
mkdir -p "results/$machine"
cp "$work/latency.side" "$base.latency.hgrm"
cp "$work/stages.side" "$base.stages.json"
cp "$work/floor.side" "results/$machine/floor.json"
for s in throughput latency stages overload listeners; do cat "$work/$s.txt"; done >"$base.tmp"
mv "$base.tmp" "$base.txt"
# The first results are the baseline until another is chosen.
[ -e "results/$machine/baseline.txt" ] || ln -s "$date-$commit.txt" "results/$machine/baseline.txt"
rm -rf "$work"
echo "results: $base.txt"
