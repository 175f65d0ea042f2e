#!/bin/sh
# Builds the command with musl, and runs commands under it: none may end otherwise than
# it does bare. The C library has a part in each thread's end, so what a confined
# thread may do must suit each. On Alpine that is simply how it is built; elsewhere
# it takes packages musl-tools and libseccomp-dev (Debian, Ubuntu).
#
#   scripts/musl.sh [runs [unknot]]      1000 runs unless told otherwise; of that program, if named
set -eu
cd "$(dirname "$0")/.."
runs=${1:-1000} unknot=${2-}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

if [ -n "$unknot" ]; then
    :
elif ldd /bin/sh 2>&1 | grep -q musl; then
    unknot=$tmp/unknot
    go build -pgo=off -buildvcs=false -o "$unknot" ./cmd/unknot
elif command -v musl-gcc >/dev/null 2>&1; then
    unknot=$tmp/unknot
    # The kernel's and libseccomp's headers, without glibc's.
    mkdir "$tmp/include"
    arch=$(${CC:-cc} -print-multiarch)
    for d in linux asm-generic; do ln -s /usr/include/$d "$tmp/include/$d"; done
    ln -s "/usr/include/$arch/asm" "$tmp/include/asm"
    ln -s /usr/include/seccomp.h /usr/include/seccomp-syscalls.h "$tmp/include"
    # libseccomp as distributed is compiled with glibc's checks of buffers.
    cat >"$tmp/checks.c" <<'C'
#include <stdarg.h>
#include <stdio.h>
int __fprintf_chk(FILE *f, int flag, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int n = vfprintf(f, format, args);
	va_end(args);
	return n;
}
C
    musl-gcc -c -o "$tmp/checks.o" "$tmp/checks.c"
    cp "$(${CC:-cc} -print-file-name=libseccomp.a)" "$tmp/libseccomp.a"
    ar r "$tmp/libseccomp.a" "$tmp/checks.o"
    cat >"$tmp/pkg-config" <<S
#!/bin/sh
case " \$* " in
*" --libs "*) echo "-L$tmp -lseccomp" ;;
*" --modversion "*) pkg-config --modversion libseccomp ;;
esac
S
    chmod +x "$tmp/pkg-config"
    CC=musl-gcc PKG_CONFIG="$tmp/pkg-config" CGO_ENABLED=1 CGO_CFLAGS="-isystem $tmp/include" CGO_LDFLAGS="-L$tmp" \
        go build -pgo=off -buildvcs=false -tags netgo,osusergo -ldflags '-linkmode external -extldflags -static' -o "$unknot" ./cmd/unknot
else
    echo "musl: NOT CHECKED: no musl-gcc here (package musl-tools)" >&2
    exit 0
fi

i=0 odd=0
while [ $i -lt "$runs" ]; do
    i=$((i + 1))
    status=0
    "$unknot" run -- /bin/true >"$tmp/out" 2>&1 || status=$?
    if [ $status -ne 0 ]; then
        odd=$((odd + 1))
        echo "musl: run $i: status $status:" >&2
        head -n 5 "$tmp/out" >&2
    fi
done
echo "musl: $runs runs, $odd with another status than 0"
[ $odd -eq 0 ]
