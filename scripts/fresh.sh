#!/bin/sh
# Makes the generated code and pages again and fails if that changes anything.
# The BPF programs need the pinned compiler, so that objects are compared as well;
# where it cannot be had, this says so and checks the rest.
set -eu
cd "$(dirname "$0")/.."
# generate runs the generators of the given packages.
generate() {
    before=$(git diff | cksum)
    go generate "$@"
    if [ "$(git diff | cksum)" != "$before" ]; then
        git --no-pager diff --stat >&2
        echo "fresh: make generate changes the files above: commit what it made" >&2
        exit 1
    fi
}
generate ./confine ./engine/syscalls
if ! sh scripts/deps.sh generate; then
    echo "fresh: BPF NOT CHECKED: the pinned clang is not here and could not be installed" >&2
    exit 0
fi
generate work
echo "fresh: make generate changes nothing"
