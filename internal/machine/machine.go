// Package machine says what makes the results of two runs comparable: a
// fingerprint of the machine, and what stands behind it.
//
// What is in it are the things that alone change the cost of a system call or of
// a wake-up by more than what one wants to find: the CPU and how it idles (on
// virtual machines idle states and haltpoll alone move a wake-up by half), the
// kernel with its mitigations and those of its boot parameters that matter, and
// what the program was built with. The same fingerprint does not make two machines
// the same; a different one means that a comparison would be of the machines.
package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Fact is one thing that the fingerprint is made of. Facts are printed into
// results, which are published: none may name a host, its disks or its owner.
type Fact struct{ Name, Value string }

// Facts reads this machine's facts, in a fixed order. What cannot be read is
// "unknown", which is a value like any other. More facts (versions of libraries)
// come last.
func Facts(more ...Fact) []Fact { return facts("/", more) }

// Fingerprint is a short hash of the facts.
func Fingerprint(facts []Fact) string {
	h := sha256.New()
	for _, f := range facts {
		fmt.Fprintf(h, "%q: %q\n", f.Name, f.Value)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// facts reads below root, for tests.
func facts(root string, more []Fact) []Fact {
	sys := func(name string) string { return read(filepath.Join(root, "sys", name)) }
	var u unix.Utsname
	_ = unix.Uname(&u)
	cpuinfo := read(filepath.Join(root, "proc/cpuinfo"))
	fs := []Fact{
		{"arch", runtime.GOARCH},
		{"cpu", cpuModel(cpuinfo)},
		{"cpus-online", sys("devices/system/cpu/online")},
		{"smt", sys("devices/system/cpu/smt/control")},
		{"governor", sys("devices/system/cpu/cpu0/cpufreq/scaling_governor")},
		{"cpuidle", sys("devices/system/cpu/cpuidle/current_driver") + " " + sys("devices/system/cpu/cpuidle/current_governor_ro")},
		{"haltpoll", sys("module/haltpoll/parameters/guest_halt_poll_ns")},
		{"hypervisor", hypervisor(sys, cpuinfo)},
		{"kernel", unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Version[:])},
		{"boot", bootParams(read(filepath.Join(root, "proc/cmdline")))},
		{"mitigations", mitigations(filepath.Join(root, "sys/devices/system/cpu/vulnerabilities"))},
		{"gomaxprocs", strconv.Itoa(runtime.GOMAXPROCS(0))},
		{"go", runtime.Version()},
	}
	return append(fs, more...)
}

// read returns a small file on one line.
func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

func cpuModel(cpuinfo string) string {
	for _, key := range []string{"model name", "CPU part"} { // arm64 has no name
		if v := field(cpuinfo, key); v != "" {
			return v
		}
	}
	return "unknown"
}

func field(cpuinfo, key string) string {
	for l := range strings.Lines(cpuinfo) {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func hypervisor(sys func(string) string, cpuinfo string) string {
	if !slices.Contains(strings.Fields(field(cpuinfo, "flags")), "hypervisor") && runtime.GOARCH == "amd64" {
		return "none"
	}
	return sys("hypervisor/type") + ", " + sys("class/dmi/id/sys_vendor") + " " + sys("class/dmi/id/product_name")
}

// mitigations are the kernel's own words on each vulnerability.
func mitigations(dir string) string {
	names, err := os.ReadDir(dir)
	if err != nil {
		return "unknown"
	}
	var all []string
	for _, n := range names {
		all = append(all, n.Name()+"="+read(filepath.Join(dir, n.Name())))
	}
	return strings.Join(all, "; ")
}
