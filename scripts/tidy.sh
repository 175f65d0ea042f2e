#!/bin/sh
# Runs `go mod tidy` in each module of the repository, each by itself, without the workspace:
#
#   scripts/tidy.sh          writes go.mod and go.sum
#   scripts/tidy.sh -diff    writes nothing, and fails if something would change
#
# cmd/unknot must not have a `replace`, or `go install …/cmd/unknot@version` refuses it, and what it requires may not
# be published yet; it is tidied by a copy of its go.mod that has one (docs/decisions/25-modules.md).
set -eu
cd "$(dirname "$0")/.."
root=$PWD diff=${1-} failed=0
export GOWORK=off
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for m in $(git ls-files go.mod '*/go.mod' | grep -v testdata | xargs -n1 dirname); do
    cd "$root/$m"
    file=go.mod
    if [ "$m" = cmd/unknot ]; then
        file=$tmp/go.mod
        cp go.mod go.sum "$tmp"
        for own in "" /bench /engine/metrics; do
            go mod edit -replace "github.com/unknot/unknot$own=$root$own" "$file"
        done
    fi
    if ! go mod tidy $diff -modfile "$file"; then
        echo "tidy: $m/go.mod is not tidy: run sh scripts/tidy.sh" >&2
        failed=1
    elif [ "$m" = cmd/unknot ] && [ -z "$diff" ]; then
        for own in "" /bench /engine/metrics; do
            go mod edit -dropreplace "github.com/unknot/unknot$own" "$file"
        done
        cp "$tmp/go.mod" "$tmp/go.sum" .
    fi
done
exit $failed
