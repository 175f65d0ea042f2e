#!/bin/sh
# Makes cmd/unknot/default.pgo, by which the Go compiler decides what to inline
# (profile-guided optimization): of all engines alike, so that none is preferred. It is
# made by a build without one, so that it does not depend on the last.
#
# Each storm has the engines that have its path.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
go build -pgo=off -o "$work/unknot" ./cmd/unknot
storm() {
    "$work/unknot" bench --targets 1,16,64 --duration 2s --count 2 --trace off "$@" >/dev/null
}
storm --engine unknot,chan,seed,bare --queue 512 --cpuprofile "$work/anywhere"
storm --engine unknot,chan,seed,bare --queue 512 --target-cpu 0 --cpuprofile "$work/pinned"
storm --engine unknot,chan,seed --path queue --work 20us --queue 16 --cpuprofile "$work/overload"
go tool pprof -proto "$work/anywhere" "$work/pinned" "$work/overload" >"$work/merged"
mv "$work/merged" cmd/unknot/default.pgo # whole or not at all: an empty one is none
