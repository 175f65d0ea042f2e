#!/bin/sh
# Runs runc's own tests of its seccomp agent against examples/agent:
#
#   scripts/runctests.sh RUNC-SOURCE [RUNC]
#
# RUNC-SOURCE is a checkout of github.com/opencontainers/runc, in which this puts binaries and an image; RUNC is the
# runc to test with, by default one built there. It needs root, bats, jq, busybox-static, script(1) and libseccomp's headers.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
src=$(cd "$1" && pwd)
for tool in bats jq busybox script go; do
    command -v "$tool" >/dev/null || { echo "runctests: no $tool: install it" >&2; exit 1; }
done
cd "$src"
bin=tests/cmd/_bin
mkdir -p "$bin"
(cd "$here" && CGO_ENABLED=0 go build -o "$src/$bin/seccompagent" ./examples/agent)
[ -x "$bin/recvtty" ] || go build -mod=vendor -o "$bin/recvtty" ./tests/cmd/recvtty
runc=${2:-$src/runc}
[ -x "$runc" ] || go build -mod=vendor -tags seccomp -o "$runc" .

# The images that the tests would download. Only busybox is used.
arch=$(go env GOARCH)
images=tests/integration/testdata
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$root/etc" "$root/root"
for applet in $(busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
cp "$(command -v busybox)" "$root/bin/busybox"
tar -C "$root" -cJf "$images/busybox-$arch.tar.xz" .
[ -e "$images/debian-$arch.tar.xz" ] || : >"$images/debian-$arch.tar.xz"

# runc wants a terminal.
RUNC="$runc" script -qec "bats -t tests/integration/seccomp-notify.bats" /dev/null </dev/null
