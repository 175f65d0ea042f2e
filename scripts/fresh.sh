#!/bin/sh
# Makes the generated code again and fails if that changes anything. The compiler
# is pinned, so objects are compared as well; where it cannot be had, this says so
# and checks nothing.
set -eu
cd "$(dirname "$0")/.."
if ! git grep -q '^//go:generate' -- '*.go'; then
    echo "fresh: nothing is generated here"
    exit 0
fi
if ! sh scripts/deps.sh generate; then
    echo "fresh: NOT CHECKED: the pinned clang is not here and could not be installed" >&2
    exit 0
fi
before=$(git diff | cksum)
go generate ./...
if [ "$(git diff | cksum)" != "$before" ]; then
    git --no-pager diff --stat >&2
    echo "fresh: make generate changes the files above: commit what it made" >&2
    exit 1
fi
echo "fresh: make generate changes nothing"
