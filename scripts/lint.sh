#!/bin/sh
# gofmt, go mod tidy, staticcheck, and depguard with .depguard.yaml, over every module of the workspace. Both tools
# are pinned in scripts/go.mod.
set -eu
cd "$(dirname "$0")/.."
failed=0
bad=$(git ls-files -z '*.go' | xargs -0 gofmt -l)
if [ -n "$bad" ]; then
    echo "lint: not formatted, run gofmt -w on: $(echo $bad)" >&2
    failed=1
fi
sh scripts/tidy.sh -diff || failed=1
# Each architecture and each set of build tags has code of its own, and code is
# unused only if no build uses it. Only the ring's folders have tags of their own, and the
# engine's fakekernel; what needs cgo is no package at all for arm64 here.
both=$(GOARCH=arm64 CGO_ENABLED=0 go list work | grep -v '/ring$\|/ring/linear$\|/ring/peers')
rest=$(go list work | grep -vxF "$both")
tagged='plain:\nchaos: -tags=ringchaos\nmodel: -tags=ringmodel\n'
printf 'amd64: GOARCH=amd64\narm64: GOARCH=arm64 CGO_ENABLED=0\nfake: -tags=fakekernel\n' | go tool staticcheck -matrix $both || failed=1
printf "$tagged" | go tool staticcheck -matrix $rest || failed=1
go tool depguard work || failed=1
exit $failed
