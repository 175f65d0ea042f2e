#!/bin/sh
# Installs what building unknot needs and this machine lacks, by the system's
# package manager; does nothing, and asks for no privilege, when all is there.
#
#   scripts/deps.sh            Go, a C compiler, libseccomp's headers, pkg-config, git
#   scripts/deps.sh generate   also clang and llvm of the version that bench/trace pins
#   scripts/deps.sh kernels    also what scripts/kernels.sh emulates a machine with; kernels-arm64: one of arm64, on Debian
#   scripts/deps.sh release    also, on Debian, what a release for arm64 with cgo takes; goes on where it cannot be had
set -eu
cd "$(dirname "$0")/.."

say() { echo "deps: $*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

[ "$(uname -s)" = Linux ] || die "unknot needs Linux, this is $(uname -s)"

# The BPF programs are compiled by one version of clang, so that the same source
# gives the same bytes everywhere.
clang=$(sed -n 's/^\/\/go:generate.* -cc clang-\([0-9]*\).*/\1/p' bench/trace/generate.go 2>/dev/null | head -n 1)

cc() { ${CC:-$(go env CC 2>/dev/null || echo cc)} "$@"; }

# missing prints what is not there, one word each: go git cc pkgconfig seccomp clang llvm qemu busybox cpio cross.
missing() {
    have go || echo go
    have git || echo git
    # A compiler without the C library's headers is of no use, so compile something.
    if echo 'int main(void) { return 0; }' | cc -include stdlib.h -x c -o /dev/null - 2>/dev/null; then
        echo '#include <seccomp.h>
              int main(void) { return seccomp_api_get() == 0; }' | cc -x c -o /dev/null - -lseccomp 2>/dev/null || echo seccomp
    else
        echo cc
        [ -e /usr/include/seccomp.h ] || echo seccomp
    fi
    have "${PKG_CONFIG:-pkg-config}" || echo pkgconfig
    case ${1-} in kernels | kernels-arm64) have cpio || echo cpio ;; esac
    if [ "${1-}" = kernels-arm64 ]; then
        have qemu-system-aarch64 || echo qemu-arm
    fi
    if [ "${1-}" = kernels ]; then
        have qemu-system-x86_64 || echo qemu
        # One that needs shared libraries is of no use there.
        if ! have busybox || ldd "$(command -v busybox)" >/dev/null 2>&1; then echo busybox; fi
    fi
    if { [ "${1-}" = release ] || [ "${1-}" = kernels-arm64 ]; } && [ "$(dpkg --print-architecture 2>/dev/null) $(. /etc/os-release && echo "$ID")" = "amd64 debian" ]; then
        echo '#include <seccomp.h>
              int main(void) { return seccomp_api_get() == 0; }' | aarch64-linux-gnu-gcc -static -x c -o /dev/null - -lseccomp 2>/dev/null || echo cross
    fi
    if [ "${1-}" = generate ]; then
        [ -z "$clang" ] || have "clang-$clang" || echo clang
        [ -z "$clang" ] || have "llvm-strip-$clang" || echo llvm
    fi
}

# packages maps such words to the packages of one package manager.
packages() {
    manager=$1; shift
    for what; do
        case $manager:$what in
        *:go) ;; # said below: distributions' Go is mostly too old
        *:git) echo git ;;
        apt:cc) echo gcc libc6-dev ;;
        dnf:cc) echo gcc glibc-devel ;;
        apk:cc) echo gcc musl-dev linux-headers ;;
        pacman:cc) echo gcc ;;
        apt:seccomp) echo libseccomp-dev ;;
        dnf:seccomp) echo libseccomp-devel ;;
        apk:seccomp) echo libseccomp-dev linux-headers ;;
        pacman:seccomp) echo libseccomp ;;
        apt:pkgconfig) echo pkg-config ;;
        dnf:pkgconfig) echo pkgconf-pkg-config ;;
        apk:pkgconfig | pacman:pkgconfig) echo pkgconf ;;
        apt:clang) echo "clang-$clang" ;;
        apt:llvm) echo "llvm-$clang" ;;
        apt:cross) echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross libseccomp-dev:arm64 ;;
        apt:qemu) echo qemu-system-x86 ;;
        apt:qemu-arm) echo qemu-system-arm ;;
        apt:busybox) echo busybox-static ;;
        dnf:qemu) echo qemu-system-x86-core ;;
        apk:qemu) echo qemu-system-x86_64 ;;
        pacman:qemu) echo qemu-system-x86 ;;
        apk:busybox) echo busybox-static ;;
        *:busybox) echo busybox ;;
        *:cpio) echo cpio ;;
        dnf:clang | apk:clang) echo "clang$clang" ;;
        dnf:llvm | apk:llvm) echo "llvm$clang" ;;
        esac
    done
}

# as_root runs a command as root, without asking anything where nobody could answer.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        if [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi
    elif have doas; then
        doas "$@"
    else
        die "not root, and there is no sudo: as root, run: $*"
    fi
}

install() {
    case $manager in
    apt)
        case " $* " in *:arm64\ *) as_root dpkg --add-architecture arm64 ;; esac
        as_root apt-get update -qq || say "apt-get update failed; trying with the lists there are"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" ;;
    dnf) as_root dnf install -y -q "$@" ;;
    apk) as_root apk add --no-progress "$@" ;;
    pacman) as_root pacman -Sy --needed --noconfirm "$@" ;;
    esac >&2
}

lacking=$(missing "$@")
if [ -n "$lacking" ]; then
    manager=
    for m in apt-get:apt dnf:dnf apk:apk pacman:pacman; do
        if have "${m%%:*}"; then manager=${m##*:}; break; fi
    done
    # shellcheck disable=SC2086 # words, on purpose
    set -- "${1-}" $lacking
    kind=$1; shift
    if [ -n "$manager" ]; then
        # shellcheck disable=SC2046,SC2086
        set -- $(packages "$manager" $lacking)
        if [ $# -gt 0 ]; then
            say "installing $* ($manager)"
            install "$@" || [ "$lacking" = cross ] || die "could not install $*: install them by hand and try again"
        fi
    elif [ "$lacking" != go ]; then
        die "missing: $(echo $lacking); none of apt-get, dnf, apk, pacman is here to install them: do it by hand"
    fi
    lacking=$(missing "$kind")
    case " $(echo $lacking) " in
    *" go "*) die "no Go: get 1.26 or newer from https://go.dev/dl/ and put its bin directory on PATH (a distribution's Go of 1.21 or newer will do, it fetches 1.26 itself)" ;;
    "  ") ;;
    *" clang "* | *" llvm "*) die "no clang-$clang and llvm-strip-$clang here, which the BPF programs are compiled with: https://apt.llvm.org has them for Debian and Ubuntu" ;;
    *) die "still missing after installing: $(echo $lacking)" ;;
    esac
fi

# go.work names the Go it needs; an older one fetches it, if it may.
if ! version=$(go env GOVERSION 2>&1); then
    die "this Go cannot build unknot: $version; get 1.26 or newer from https://go.dev/dl/"
fi
case $version in
go1.[0-9] | go1.[0-9].* | go1.1[0-9]* | go1.2[0-5]*) die "$version is too old: get 1.26 or newer from https://go.dev/dl/" ;;
esac
