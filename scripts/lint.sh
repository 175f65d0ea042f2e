#!/bin/sh
# gofmt, go mod tidy, staticcheck, and depguard with .depguard.yaml. Both tools
# are pinned in go.mod.
set -eu
cd "$(dirname "$0")/.."
failed=0
bad=$(git ls-files -z '*.go' | xargs -0 gofmt -l)
if [ -n "$bad" ]; then
    echo "lint: not formatted, run gofmt -w on: $(echo $bad)" >&2
    failed=1
fi
go mod tidy -diff || { echo "lint: go.mod is not tidy, run go mod tidy" >&2; failed=1; }
# Each architecture and each set of build tags has code of its own, and code is
# unused only if no build uses it. Only the ring's folders have tags of their own, and the engine's fakekernel; what
# needs cgo is no package at all for arm64 here.
both=$(GOARCH=arm64 CGO_ENABLED=0 go list ./... | grep -v '/ring$')
rest=$(go list ./... | grep -vxF "$both")
tagged='plain:\nchaos: -tags=ringchaos\nmodel: -tags=ringmodel\n'
printf 'amd64: GOARCH=amd64\narm64: GOARCH=arm64 CGO_ENABLED=0\nfake: -tags=fakekernel\n' | go tool staticcheck -matrix $both || failed=1
printf "$tagged" | go tool staticcheck -matrix $rest || failed=1
go tool depguard ./... || failed=1
# Modules of their own, with the same tools.
staticcheck=$(go tool -n staticcheck)
for m in $(git ls-files '*/go.mod' | grep -v testdata | xargs -r -n1 dirname); do
    builds='plain:\n'
    if [ "$m" = ring/peers ]; then builds=$tagged; fi
    (cd "$m" && go mod tidy -diff && printf "$builds" | "$staticcheck" -matrix ./...) || failed=1
done
exit $failed
