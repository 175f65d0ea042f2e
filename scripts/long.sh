#!/bin/sh
# The long forms of tests, of which `make test` runs a part: see the tests that have a flag -long, and CONTRIBUTING.md.
set -eu
cd "$(dirname "$0")/.."
export GOFLAGS="${GOFLAGS:+$GOFLAGS }-pgo=off"
failed=0
long() { # PACKAGE TESTS, by pattern
    go test -list "$2" "$1" | grep -q ^Test || { echo "long: no test of $1 is $2" >&2; failed=1; }
    go test -timeout 60m "$1" -run "$2" -args -long || failed=1
}
long ./cmd/unknot '^(TestActionGates|TestColumns|TestPlanted|TestPoliciesIn|TestRunInheritance|TestRunLoses|TestSoakServe)'
long ./bench/compare '^(TestPower|TestErrorRates)'
long ./cmd/unknot/internal/daemon '^Test(StoppedForLong|Kill|Upgrade|ServiceManagerKeeps|Systemd$)'
long ./cmd/unknot/internal/tune/sim '^Test(ClosedForms|WaitTargetIs)'
UNKNOT_MODEL=night go test -timeout 60m -run '^TestModel' ./ring || failed=1
go test -timeout 60m ./confine -run 'Scenarios|Engine|Violations|Agree' -for 5s || failed=1
exit $failed
