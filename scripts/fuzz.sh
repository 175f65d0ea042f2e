#!/bin/sh
# Runs every fuzz target of every module, one after the other:
#
#   scripts/fuzz.sh [TIME [PATTERN]]    each for TIME (1m), those whose name or package matches PATTERN
#
# What fails is kept by `go test` in the package's testdata/fuzz, where each later run of the tests finds it: commit it with the mend.
set -eu
cd "$(dirname "$0")/.."
time=${1:-1m} pattern=${2:-.} failed=0
for p in $(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}' work); do
    for name in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$p"/*_test.go); do
        echo "$p $name" | grep -Eq "$pattern" || continue
        echo "=== $name in ${p#"$PWD"/}"
        (cd "$p" && go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" .) || failed=1
    done
done
exit $failed
