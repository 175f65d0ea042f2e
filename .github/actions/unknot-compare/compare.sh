#!/usr/bin/env bash
# Builds the test binaries of two commits, runs them in turn, writes the table.
# As a step of a job its status is 0 when there is a verdict, whose code is the output
# "exit"; where that is missing, there is none. Elsewhere its status is that code. By hand, in a checkout:
#   PACKAGE=./ring BASE=main bash .github/actions/unknot-compare/compare.sh
set -euo pipefail
: "${BASE:?name the commit to compare with (input base, or run on pull_request)}"
PACKAGE=${PACKAGE:-.} BENCH=${BENCH:-.} BENCHTIME=${BENCHTIME:-100ms} BUDGET=${BUDGET:-5m} ROUNDS=${ROUNDS:-}
THRESHOLD=${THRESHOLD:-5%} GATE=${GATE:-} ACTION=${ACTION:-$(dirname "$0")}
output() { if [ -n "${GITHUB_OUTPUT:-}" ]; then echo "$1" >>"$GITHUB_OUTPUT"; else echo "$1" >&2; fi; }

work=$(mktemp -d "${RUNNER_TEMP:-${TMPDIR:-/tmp}}/compare.XXXXXX")
head=$(pwd)
trap 'git worktree remove --force "$work/base" 2>/dev/null || true' EXIT

# The comparer is of the same version as this action.
if [ -z "${UNKNOT:-}" ]; then
    UNKNOT=$work/unknot
    (cd "$ACTION" && CGO_ENABLED=0 go build -o "$UNKNOT" github.com/unknot/unknot/cmd/unknot)
fi

if ! git cat-file -e "$BASE^{commit}" 2>/dev/null; then
    git fetch --no-tags --depth=1 origin "$BASE"
fi
git worktree add --quiet --detach "$work/base" "$BASE"
# The module may lie below the repository's root.
base=$work/base/$(git rev-parse --show-prefix)

build() { # directory, output
    (cd "$1" && go test -c -o "$2" "$PACKAGE")
}
build "$head" "$work/head.test"
[ -x "$work/head.test" ] || { echo "compare: package $PACKAGE has no tests in the head" >&2; exit 1; }
# A package that the base has not is new. One that is there and does not build is an error.
dir=$(cd "$(go list -f '{{.Dir}}' "$PACKAGE")" && pwd -P)
root=$(pwd -P)
case $dir/ in
"$root"/*) ;;
*) echo "compare: package $PACKAGE is in $dir, which is not below $root" >&2; exit 1 ;;
esac
if [ -n "$(find "$base/${dir#"$root"}" -maxdepth 1 -name '*.go' 2>/dev/null | head -n 1)" ]; then
    build "$base" "$work/base.test"
fi

command() { # directory, binary: as go test does, in the package's own directory
    printf 'cd %q && %q -test.run "^$" -test.benchmem -test.bench {bench} -test.benchtime {benchtime}' \
        "$(cd "$1" && go list -f '{{.Dir}}' "$PACKAGE")" "$2"
}
old="echo PASS" # and no results
[ ! -x "$work/base.test" ] || old=$(command "$base" "$work/base.test")
new=$(command "$head" "$work/head.test")
# Nothing that decides comes from the tree under test: a noise floor in it could hide anything.
args=(compare --run --allow-new --floor none --threshold "$THRESHOLD" --bench "$BENCH" --benchtime "$BENCHTIME" --format markdown -o "$work/results")
if [ -n "$ROUNDS" ]; then args+=(--rounds "$ROUNDS"); else args+=(--budget "$BUDGET"); fi
[ "${PROFILE:-true}" != true ] || args+=(--profile)
args+=(--commits "$(git rev-parse --short=12 "$BASE^{commit}"),$(git rev-parse --short=12 HEAD)")
[ -z "$GATE" ] || args+=(--gate "$GATE")
code=0
"$UNKNOT" "${args[@]}" "$old" "$new" >"$work/report.md" || code=$?
cat "$work/report.md"
output "exit=$code"
if [ "$code" != 2 ]; then
    output "report=$work/report.md"
    output "results=$work/results"
    output "id=$(basename "$work")" # artifacts of several actions in a job need names of their own
    [ -z "${GITHUB_STEP_SUMMARY:-}" ] || cat "$work/report.md" >>"$GITHUB_STEP_SUMMARY"
fi
[ -n "${GITHUB_OUTPUT:-}" ] || exit "$code" # else verdict.sh decides, after the comment
