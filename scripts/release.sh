#!/bin/sh
# Makes what a release consists of: static binaries, .deb, .rpm, a bill of materials for each binary, checksums.
#
#   scripts/release.sh [COMMIT]      into dist/, of HEAD unless told otherwise; docs/release.md says more
#
# The binaries are those that `go install …/cmd/unknot@VERSION` makes of the commit's modules, with the profile that
# is in them. With the same commit, Go, C compiler and libseccomp all files come out the same, byte for byte.
# PGO=off builds without the profile, which takes a third of the time and gives other bytes.
set -eu
cd "$(dirname "$0")/.."
say() { echo "release: $*" >&2; }
die() { say "$*"; exit 1; }
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
cyclonedx=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

commit=$(git rev-parse --verify "${1:-HEAD}^{commit}") || die "${1:-HEAD} is no commit"
out=${OUT:-dist}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
rm -rf "$out"
mkdir -p "$out" "$tmp/src"
out=$(cd "$out" && pwd)
version=$(go run ./scripts/proxy -rev "$commit" -o "$tmp/proxy")
git archive "$commit" | tar -x -C "$tmp/src"
grep -q "^## $version" "$tmp/src/CHANGELOG.md" || die "CHANGELOG.md has no section for $version, the version that cmd/unknot/go.mod requires"
SOURCE_DATE_EPOCH=$(git show -s --format=%ct "$commit")
export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C
umask 022

# The tools first, with nothing of this machine in them: a bill of materials has the hash of what made it.
mkdir "$tmp/bin"
for tool in "$nfpm" "$cyclonedx"; do
    CGO_ENABLED=0 GOFLAGS=-trimpath GOWORK=off GOBIN=$tmp/bin go install "$tool"
done

cache=$(go env GOMODCACHE)/cache/download
export GOWORK=off GOFLAGS='-trimpath -buildvcs=false -modcacherw' GOMODCACHE="$tmp/mod"
GOPROXY="file://$tmp/proxy,file://$cache,$(go env GOPROXY)"
GONOSUMDB=github.com/unknot/unknot # it is not published yet, and its source is here
export GOPROXY GONOSUMDB

{
    echo "commit $commit"
    go version
} >"$out/BUILT-WITH"
for arch in amd64 arm64; do
    case $arch in amd64) cc=x86_64-linux-gnu-gcc ;; *) cc=aarch64-linux-gnu-gcc ;; esac
    [ "$arch" != "$(go env GOHOSTARCH)" ] || cc=$(go env CC)
    # A compiler that can link libseccomp into a static program for that processor, or none.
    cgo=0 flags='-s -w' tags=
    if command -v "$cc" >/dev/null && echo '#include <seccomp.h>
        int main(void) { return seccomp_api_get() == 0; }' | "$cc" -static -x c -o "$tmp/try" - -lseccomp 2>/dev/null; then
        cgo=1 flags='-s -w -linkmode external -extldflags "-static -Wl,--build-id=none"' tags=netgo,osusergo
        echo "$arch: $("$cc" --version | head -n 1), libseccomp $(echo '#include <seccomp.h>
            SCMP_VER_MAJOR.SCMP_VER_MINOR.SCMP_VER_MICRO' | "$cc" -E -P -x c - | tail -n 1 | tr -d ' ')" >>"$out/BUILT-WITH"
    else
        say "$arch WITHOUT CGO: no $cc that links libseccomp statically; the command says what it lacks"
        echo "$arch: without cgo" >>"$out/BUILT-WITH"
    fi
    GOPATH="$tmp/go" GOARCH=$arch CGO_ENABLED=$cgo CC=$cc \
        go install -pgo="${PGO:-auto}" -tags "$tags" -ldflags "$flags" "github.com/unknot/unknot/cmd/unknot@$version"
    built=$tmp/go/bin/unknot
    [ "$arch" = "$(go env GOHOSTARCH)" ] || built=$tmp/go/bin/linux_$arch/unknot
    binary=$out/unknot-$version-linux-$arch
    cp "$built" "$binary"
    chmod 755 "$binary"
    "$tmp/bin/cyclonedx-gomod" bin -json -noserial -version "$version" -output "$tmp/sbom.json" "$binary" 2>"$tmp/said" || die "bill of materials: $(cat "$tmp/said")"
    # The time of the commit, not of today.
    sed "s/\"timestamp\": \"[^\"]*\"/\"timestamp\": \"$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)\"/" "$tmp/sbom.json" >"$binary.cdx.json"
    # The units name /usr/local, where one who builds installs.
    for unit in unknot.service unknot.socket; do
        sed 's,/usr/local/bin/,/usr/bin/,' "$tmp/src/examples/serve/$unit" >"$tmp/$unit"
    done
    export ARCH=$arch VERSION="$version" BINARY="$binary" UNITS="$tmp" SRC="$tmp/src"
    for format in deb rpm; do
        (cd "$tmp/src" && "$tmp/bin/nfpm" package -f scripts/nfpm.yaml -p "$format" -t "$out/" >/dev/null)
    done
done
(cd "$out" && sha256sum -- * >"$tmp/SHA256SUMS" && mv "$tmp/SHA256SUMS" .)
say "$version in $out:"
(cd "$out" && ls -l)
