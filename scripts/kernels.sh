#!/bin/sh
# Runs tests on other kernels: Debian's cloud kernels, in a machine that qemu emulates
# without KVM, so that it works anywhere. Prints a table kernel x suite; exit status 1
# if a suite fails or does not end.
#
#   scripts/kernels.sh [-s SUITES] [-c CPUS] [-m MIB] [-t SECONDS] [-A ARCH] [-l] [-u] [-w] [-a ARGS] [-e COMMAND] [KERNEL...]
#
#   KERNEL       5.10, 6.1, 6.12, newest, or the file of a kernel (5.10 6.1 6.12 unless told otherwise)
#   -s SUITES    of notify, notifytest, engine, confine, filter, trace, record, command, with commas (all);
#                or systemd: the life of serve under systemd as the first process, which
#                takes a machine that has Debian's packages; or faults: the engine under faults,
#                among them a CPU that goes offline
#   -c CPUS      of the emulated machine (2)
#   -m MIB       its memory (3072)
#   -t SECONDS   what a boot with all its suites may take (600)
#   -A ARCH      amd64 or arm64 (amd64); arm64 has the kernels 5.10 and 6.1, and by default 6.1
#                and the suites notify, notifytest, engine and confine
#   -l           long: tests without -test.short
#   -u           tests run as a normal user
#   -w           also writes the table's rows into docs/kernels.md
#   -a ARGS      more arguments for test binaries, as a shell reads them, such as -test.run=TestLoop
#   -e COMMAND   runs that in the machine's shell instead of suites; unknot is on its PATH,
#                and so are many and supervise, the yardsticks of bench/floor
#
# Kernels and logs are kept in $UNKNOT_KERNELS (~/.cache/unknot-kernels). Kernels come
# from the Debian mirror that this machine's apt uses; elsewhere name one in
# UNKNOT_DEBIAN and UNKNOT_DEBIAN_SECURITY, or put the files there as vmlinuz-5.10 and so on.
set -eu
cd "$(dirname "$0")/.."

say() { echo "kernels: $*" >&2; }
die() { say "$*"; exit 1; }
usage() { sed -n '6,23s/^# \{0,3\}//p' "$0" >&2; exit 2; }

all=notify,notifytest,engine,confine,filter,trace,record,command
suites='' cpus=2 arch=amd64 memory=3072 limit=600 short=-test.short args='' user='' command='' write=''
while getopts s:c:m:t:A:luwa:e: flag; do
    case $flag in
    s) suites=$OPTARG ;;
    c) cpus=$OPTARG ;;
    m) memory=$OPTARG ;;
    t) limit=$OPTARG ;;
    A) arch=$OPTARG ;;
    l) short='' ;;
    u) user=yes ;;
    w) write=docs/kernels.md ;;
    a) args=$OPTARG ;;
    e) command=$OPTARG suites=given ;;
    *) usage ;;
    esac
done
shift $((OPTIND - 1))
case $arch in
amd64)
    [ $# -gt 0 ] || set -- 5.10 6.1 6.12
    machine='' console=ttyS0 emulator=qemu-system-x86_64 brings=qemu-system-x86
    suites=${suites:-$all} ;;
arm64)
    [ $# -gt 0 ] || set -- 6.1
    machine='-machine virt' console=ttyAMA0 emulator=qemu-system-aarch64 brings=qemu-system-arm
    suites=${suites:-notify,notifytest,engine,confine} ;;
*) die "no processors $arch: there are amd64 and arm64 (flag -A)" ;;
esac
suites=$(echo "$suites" | tr , ' ')
[ "$suites" != systemd ] || all=$all,systemd
for s in $suites; do
    case ,$all,faults,given, in
    *,"$s",*) ;;
    *) die "no suite $s: there are $all" ;;
    esac
done
[ "$suites$user" != systemdyes ] || die "systemd runs as root: flag -u is for the other suites"
for n in "$cpus" "$memory" "$limit"; do
    case $n in
    '' | 0* | *[!0-9]*) die "$n is no whole number above 0 (flags -c, -m, -t)" ;;
    esac
done
for k; do
    case $k in
    5.10 | 6.1) ;;
    6.12 | newest) [ $arch = amd64 ] || die "no kernel $k for $arch: there are 5.10, 6.1, or name a file" ;;
    *) [ -f "$k" ] || die "no kernel $k: there are 5.10, 6.1, 6.12, newest, or name a file" ;;
    esac
done

# What is needed, all that is missing at once, with what brings it.
cache=${UNKNOT_KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/unknot-kernels}
[ $arch = amd64 ] || cache=$cache/$arch
mkdir -p "$cache" || die "cannot keep kernels in $cache: name another folder in UNKNOT_KERNELS"
tmp=$(mktemp -d)
qemu=''
cleanup() {
    [ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
    rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

lacking=''
lacks() {
    say "$1: $2"
    lacking=yes
}
[ "$(uname -m)" = x86_64 ] || lacks "this machine is $(uname -m)" "the kernels and the tests here are for x86_64; run it on such a machine"
command -v go >/dev/null || lacks "no Go" "scripts/deps.sh says where to get it"
command -v "$emulator" >/dev/null || lacks "no $emulator" "install package $brings (Debian, Ubuntu), or what has that program elsewhere"
command -v cpio >/dev/null || lacks "no cpio" "install package cpio"
busybox=$(command -v busybox || true)
if [ $arch != amd64 ]; then
    busybox=$cache/busybox # downloaded below
elif [ -z "$busybox" ]; then
    lacks "no busybox" "install package busybox-static"
elif ldd "$busybox" >/dev/null 2>&1; then
    lacks "$busybox needs shared libraries, which the emulated machine has not" "install package busybox-static"
fi
cc=$(go env CC 2>/dev/null || echo cc)
[ $arch = amd64 ] || cc=aarch64-linux-gnu-gcc
case $($cc -print-file-name=libseccomp.a 2>/dev/null) in
/*) ;;
*)
    if [ $arch = amd64 ]; then
        lacks "no libseccomp.a (nothing static links without it)" "install package libseccomp-dev (libseccomp-static on Fedora and Alpine)"
    else
        lacks "no $cc that links libseccomp statically" "sh scripts/deps.sh kernels-arm64 installs both"
    fi ;;
esac
# disk asks for room on the file system of a folder, in MiB.
disk() {
    free=$(($(df -Pk "$1" | awk 'NR == 2 { print $4 }') / 1024))
    [ "$free" -ge "$2" ] || lacks "$1 has $free MiB left, this takes $2" "make room, or name another folder in $3"
}
disk "$cache" 300 UNKNOT_KERNELS
disk "$tmp" 400 TMPDIR
[ -z "$lacking" ] || exit 1

# mirrors prints the Debian archives that this machine's apt knows: main or security, address.
mirrors() {
    if [ -n "${UNKNOT_DEBIAN-}" ]; then
        echo "main $UNKNOT_DEBIAN"
        [ -z "${UNKNOT_DEBIAN_SECURITY-}" ] || echo "security $UNKNOT_DEBIAN_SECURITY"
        return
    fi
    # shellcheck disable=SC2016 # apt's variables, not the shell's
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | sort -u |
        sed -n 's/^Debian|Debian-Security|/security /p; s/^Debian|Debian|/main /p' | sort -u -k 1,1
}

# download FOLDER KERNEL gets the newest package of that kernel, with lists of its own:
# what the machine's own apt knows stays as it is.
download() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        die "no apt-get and dpkg-deb to download kernel $2 with: put it there as $cache/vmlinuz-$2"
    case $2 in
    5.10) suite=bullseye version='5\.10\.' ;;
    6.1) suite=bookworm version='6\.1\.' ;;
    6.12) suite=trixie version='6\.12\.' ;;
    newest) suite=sid version='[0-9]' ;;
    esac
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    signed=''
    [ ! -e $key ] || signed="[signed-by=$key] "
    mirrors >"$1/mirrors"
    : >"$1/list"
    while read -r kind address; do
        case $kind:$suite in
        main:*) echo "deb $signed$address $suite main" ;;
        security:sid) ;;
        security:*) echo "deb $signed$address $suite-security main" ;;
        esac
    done <"$1/mirrors" >"$1/list"
    [ -s "$1/list" ] || die "apt knows no Debian mirror here (or was never updated: apt-get update): name one in UNKNOT_DEBIAN, or put the kernel there as $cache/vmlinuz-$2"
    mkdir -p "$1/state/lists/partial" "$1/archives/partial"
    # shellcheck disable=SC2089 # no option has a space
    own="-o APT::Architecture=$arch -o Dir::Etc::sourcelist=$1/list -o Dir::Etc::sourceparts=/dev/null -o Dir::State=$1/state -o Dir::State::lists=$1/state/lists -o Dir::Cache=$1 -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User="
    say "$2: reading the lists of $suite"
    # shellcheck disable=SC2086,SC2090
    apt-get $own -qq update >"$1/update.log" 2>&1 || true # an archive that has gone fails alone
    # From 7 on the image is in linux-binary, and linux-image pulls it in.
    # shellcheck disable=SC2086,SC2090
    package=$(apt-cache $own search --names-only "^linux-(image|binary)-${version}.*-cloud-$arch(-unsigned)?\$" |
        awk '{ print $1 }' | sort -t - -k 3V,3 -k 4V,4 -k 2r,2 | awk '
        # The newest release; of that one the binary, and signed, where there are several.
        { bare = $0; sub(/-unsigned$/, "", bare); sub(/^linux-(image|binary)-/, "", bare)
          if (bare != last) { best = ""; last = bare }
          rank = ($0 ~ /^linux-binary/ ? 2 : 0) + ($0 !~ /-unsigned$/ ? 1 : 0)
          if (best == "" || rank > high) { best = $0; high = rank } }
        END { print best }')
    if [ -z "$package" ]; then
        tail -n 5 "$1/update.log" >&2
        die "no package of kernel $2 in $suite: put the kernel there as $cache/vmlinuz-$2"
    fi
    say "$2: downloading $package"
    # shellcheck disable=SC2086,SC2090
    (cd "$1" && apt-get $own -qq download "$package") || die "could not download $package: try again, or put the kernel there as $cache/vmlinuz-$2"
    dpkg-deb -x "$1"/*.deb "$1/x"
    if [ ! -e "$busybox" ]; then
        rm "$1"/*.deb
        # shellcheck disable=SC2086,SC2090
        (cd "$1" && apt-get $own -qq download "busybox-static:$arch") || die "could not download busybox-static: put a static busybox for $arch there as $busybox"
        dpkg-deb -x "$1"/*.deb "$1/busybox"
        cp "$1"/busybox/bin/busybox "$busybox"
    fi
    for f in "$1"/x/boot/vmlinuz-* "$1"/x/usr/lib/modules/*/vmlinuz "$1"/x/lib/modules/*/vmlinuz; do
        if [ -f "$f" ]; then
            cp "$f" "$cache/vmlinuz-$2.part"
            mv "$cache/vmlinuz-$2.part" "$cache/vmlinuz-$2"
            return
        fi
    done
    die "$package has no kernel in it: put one there as $cache/vmlinuz-$2"
}

for k; do
    case $k in
    5.10 | 6.1 | 6.12 | newest)
        if [ ! -f "$cache/vmlinuz-$k" ] || [ ! -e "$busybox" ]; then
            mkdir "$tmp/apt-$k"
            download "$tmp/apt-$k" "$k"
            rm -rf "$tmp/apt-$k"
        fi ;;
    esac
done

[ -e "$busybox" ] || die "no busybox for $arch: put a static one there as $busybox, or run kernel 6.1 once, which brings it"

# packages unpacks systemd and what it needs to run, of the suite that this machine has, into the machine.
packages() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || die "no apt-get and dpkg-deb to download systemd with"
    for d in bin sbin lib lib64; do
        mkdir -p "$root/usr/$d"
        ln -s "usr/$d" "$root/$d"
    done
    version=$(apt-cache policy systemd | sed -n 's/^ *Candidate: //p')
    [ -n "$version" ] || die "apt knows no package systemd here (or was never updated: apt-get update)"
    kept=$cache/systemd-$version
    if [ ! -d "$kept" ]; then
        say "downloading systemd $version and its libraries"
        mkdir -p "$kept.part"
        # What configures packages is of no use there.
        apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances systemd |
            grep '^[a-z]' | sort -u | grep -Evx 'cdebconf|debconf|dpkg|tar|install-info|libdebian-.*|libnewt.*|libslang.*|libtextwrap.*|readline-common|gcc-.*' >"$tmp/names"
        # shellcheck disable=SC2046
        (cd "$kept.part" && apt-get -o APT::Sandbox::User= -qq download $(cat "$tmp/names")) || die "could not download systemd's packages: try again"
        mv "$kept.part" "$kept"
    fi
    for deb in "$kept"/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$root" --exclude './usr/share/*' --exclude './usr/lib/systemd/catalog/*'
    done
}

# The machine: busybox, the programs, and an init that runs the job and powers off.
root=$tmp/root
mkdir -p "$root/dev" "$root/etc" "$root/proc" "$root/sys" "$root/t" "$root/tmp" "$root/run" "$root/var"
[ "$suites" != systemd ] || packages
mkdir -p "$root/bin"
cp "$busybox" "$root/bin/busybox"
printf 'root:x:0:0:root:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
export CGO_ENABLED=1 GOARCH=$arch CC="$cc"
static() { # static WHAT... builds without shared libraries
    go "$@" || die "the build above failed; see CONTRIBUTING.md for what it needs"
}
link='-linkmode external -extldflags -static'
say "building"
static build -pgo=off -buildvcs=false -tags netgo,osusergo -ldflags "$link" -o "$root/bin/unknot" ./cmd/unknot
if [ -n "$command" ]; then
    static build -pgo=off -buildvcs=false -tags netgo,osusergo -ldflags "$link" -o "$root/bin/supervise" ./bench/floor/supervise
    $cc -O2 -w -static -o "$root/bin/many" bench/floor/many.c -lpthread
fi
as=''
[ -z "$user" ] || as='su nobody -s /bin/sh -c'
: >"$root/t/jobs"
for s in $suites; do
    case $s in
    notify | filter) package=engine/$s ;;
    notifytest) package=engine/notify/$s ;;
    faults) package=engine ;;
    trace | record) package=bench/$s ;;
    *) package=$s ;;
    esac
    case $s in
    given)
        printf '%s\n' "$command" >"$root/t/given"
        run="sh /t/given" ;;
    command)
        cat >"$root/t/command" <<'J'
set -e
cd /tmp
unknot doctor
unknot run -- /bin/true
unknot bench --engine unknot,chan --path inline,queue --targets 1 --trace off --duration 500ms --count 1
if [ "$(id -u)" = 0 ]; then
    # Tracing needs 5.12; below, the message must say so.
    if ! unknot bench --engine unknot --targets 1 --trace on --duration 500ms --count 1 2>trace.err; then
        cat trace.err
        grep -q 'needs .*5\.12' trace.err
        case $(uname -r) in 5.10.*) ;; *) exit 1 ;; esac
    fi
fi
J
        run="sh -x /t/command" ;;
    systemd)
        mkdir -p "$root/usr/local/bin" "$root/etc/systemd/system/test.target.requires" "$root/etc/unknot"
        ln -s ../../../bin/unknot "$root/usr/local/bin/unknot"
        cp examples/serve/unknot.socket examples/serve/unknot.service "$root/etc/systemd/system"
        printf '%032d\n' 1 >"$root/etc/machine-id"
        touch "$root/etc/.updated" "$root/var/.updated" # nothing is to be done after an update
        ln -s ../test.service "$root/etc/systemd/system/test.target.requires/test.service"
        printf '[Unit]\nDescription=Tests\n' >"$root/etc/systemd/system/test.target"
        cat >"$root/etc/systemd/system/test.service" <<'J'
[Service]
Type=oneshot
ExecStart=/bin/busybox sh /t/run
StandardOutput=append:/dev/ttyS0
StandardError=append:/dev/ttyS0
TimeoutStartSec=infinity
J
        static test -c -pgo=off -buildvcs=false -tags netgo,osusergo -ldflags "$link" -o "$root/t/$s.test" ./cmd/unknot/internal/daemon
        run="/t/$s.test -test.v -test.run ^TestSystemdItself\$ -test.timeout ${limit}s -systemd $args" ;;
    faults)
        static test -c -pgo=off -buildvcs=false -tags netgo,osusergo,faults -ldflags "$link" -o "$root/t/$s.test" "./$package"
        run="/t/$s.test -test.v -test.run ^TestFaults\$ -test.timeout ${limit}s -offline $args" ;;
    *)
        static test -c -pgo=off -buildvcs=false -tags netgo,osusergo -ldflags "$link" -o "$root/t/$s.test" "./$package"
        run="/t/$s.test -test.v $short -test.timeout ${limit}s $args" ;;
    esac
    echo "$s ${as:+$as \"}$run${as:+\"}" >>"$root/t/jobs"
done
cat >"$root/init" <<'I'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp TMPDIR=/tmp GOTRACEBACK=all
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
chmod 1777 /tmp
mkdir -p /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
mount -t tracefs trace /sys/kernel/tracing 2>/dev/null
. /t/run
I
cat >"$root/t/run" <<'I'
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin:/usr/bin HOME=/tmp TMPDIR=/tmp GOTRACEBACK=all
case $(uname -r) in 5.10.*) export UNKNOT_NO_BPF=1 ;; esac # tracing needs 5.12
ip link set lo up
echo
echo "@@ kernel $(uname -r) cpus $(nproc) clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
while read -r name run; do
    echo "@@ start $name"
    eval "$run" </dev/null 2>&1
    echo "@@ end $name $? $(cut -d . -f 1 /proc/uptime)"
done </t/jobs
echo "@@ done"
poweroff -f
I
chmod +x "$root/init"
options=''
if [ "$suites" = systemd ]; then
    ln -sf /lib/systemd/systemd "$root/init"
    options='systemd.unit=test.target systemd.show_status=0'
fi
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$tmp/initramfs"

# boot KERNEL FILE LOG boots it, tells what happens, and leaves the log.
boot() {
    # One thread of the host emulates all CPUs in turn: with one for each, CPUs of 6.1
    # were seen to stall for minutes.
    # shellcheck disable=SC2086 # options
    timeout "$limit" $emulator $machine -accel tcg,thread=single -cpu max -smp "$cpus" -m "$memory" \
        -kernel "$2" -initrd "$tmp/initramfs" -append "console=$console quiet panic=-1 $options" \
        -display none -monitor none -serial "file:$3" -no-reboot -net none </dev/null >"$3.qemu" 2>&1 &
    qemu=$!
    told=0
    while :; do
        alive=yes
        kill -0 "$qemu" 2>/dev/null || alive=''
        tr -d '\r' <"$3" 2>/dev/null | grep '^@@ ' >"$tmp/marks" || true
        sed -n "$((told + 1)),\$s/^@@ //p" "$tmp/marks" | while read -r what name status rest; do
            case $what in
            start) say "$1: $name" ;;
            end) [ "$status" = 0 ] || say "$1: $name: exit status $status" ;;
            kernel) say "$1: booted $name ($status $rest)" ;;
            esac
        done
        told=$(wc -l <"$tmp/marks")
        [ -n "$alive" ] || break
        sleep 1
    done
    status=0
    wait "$qemu" || status=$?
    qemu=''
    case $status in
    0) ;;
    124) say "$1: ended after $limit s (flag -t)" ;;
    *) say "$1: qemu: exit status $status"; cat "$3.qemu" >&2 ;;
    esac
}

# write_row NAME ROW puts the row's cells into the documentation's table of this kind, in place of those of an earlier run.
write_row() {
    awk -F ' *[|] *' -v kind="$kind" -v suites="$suites" -v key="$1 (" -v row="$2" '
        function put(old,    i, n, o, line) {
            n = split(old, o)
            line = "| " new[2] " |"
            for (i = 3; i < NC; i++) line = line " " (column[i] in cell ? cell[column[i]] : n && o[2] == new[2] ? o[i] : "not run") " |"
            print line
            done = 1
        }
        BEGIN { split(row, new); n = split(suites, s, " "); for (i = 1; i <= n; i++) cell[s[i]] = new[i + 2] }
        $2 == kind { inside = 1; NC = NF; for (i = 3; i < NF; i++) column[i] = $i }
        inside && index($2, key) == 1 { if (!done) put($0); next }
        inside && !/^[|]/ { inside = 0; if (!done) put("") }
        { print }
        END { exit !done }' "$write" >"$tmp/doc" || die "$write has no table of $kind (flag -w)"
    cp "$tmp/doc" "$write"
}

failed=0
kind="kernel, $([ $arch = amd64 ] || echo "$arch, ")${user:+normal user, }$cpus CPUs"
head="| $kind |" rule='|---|'
for s in $suites; do head="$head $s |" rule="$rule---|"; done
printf '%s\n%s\n' "$head" "$rule" >"$tmp/table"
for k; do
    case $k in
    5.10 | 6.1 | 6.12 | newest) file=$cache/vmlinuz-$k name=$k ;;
    *) file=$k name=$(basename "$k") ;;
    esac
    log=$cache/$name-$cpus${user:+-user}${command:+-command}.log
    : >"$log"
    boot "$name" "$file" "$log"
    release=$(tr -d '\r' <"$log" | sed -n 's/^@@ kernel \([^ ]*\) .*/\1/p')
    row="| $name (${release:-did not boot}) |"
    for s in $suites; do
        status=$(tr -d '\r' <"$log" | sed -n "s/^@@ end $s \([0-9]*\) .*/\1/p")
        tr -d '\r' <"$log" | sed -n "/^@@ start $s\$/,/^@@ end $s /p" >"$tmp/part"
        case $status in
        0)
            passed=$(grep -c '^--- PASS' "$tmp/part" || true)
            skipped=$(grep -c '^--- SKIP' "$tmp/part" || true)
            if [ "$passed" -gt 0 ]; then cell="$passed pass"; else cell=passes; fi
            [ "$skipped" = 0 ] || cell="$cell, $skipped skip" ;;
        '')
            failed=1
            if [ -s "$tmp/part" ]; then cell='DOES NOT END'; else cell='NOT REACHED'; fi ;;
        *)
            failed=1
            cell="FAILS: $(sed -n 's/^--- FAIL: \([^ ]*\).*/\1/p' "$tmp/part" | tr '\n' ' ')"
            [ "$cell" != 'FAILS: ' ] || cell="FAILS: exit status $status" ;;
        esac
        row="$row ${cell% } |"
    done
    echo "$row" >>"$tmp/table"
    [ -z "$write" ] || write_row "$name" "$row"
    [ -z "$command" ] || tr -d '\r' <"$log" | sed -n '/^@@ start given$/,/^@@ end given/{/^@@/!p}'
    say "$name: log in $log"
done
cat "$tmp/table"
exit $failed
