package target

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// FuzzSockaddr: whatever a target passes as an address of 2 to 128 bytes, it is an address or a reason.
func FuzzSockaddr(f *testing.F) {
	f.Add([]byte{2, 0, 0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(append([]byte{10, 0, 0, 80, 0, 0, 0, 0, 0xfe, 0x80}, make([]byte, 18)...))
	f.Add([]byte("\x01\x00/run/x\x00rest"))
	f.Add([]byte("\x01\x00\x00abstract\x00name"))
	f.Add([]byte{1, 0})
	f.Add([]byte{10, 0, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) < 2 || len(raw) > maxSockaddr {
			return // refused before
		}
		s, why := parseSockaddr(raw)
		if s.String() == "" || !bytes.Equal(s.Raw, raw) {
			t.Errorf("%x is %q, of %x", raw, s, s.Raw)
		}
		if why == "" && strings.ContainsRune(s.Path, 0) && !s.Abstract {
			t.Errorf("%x has the path %q", raw, s.Path)
		}
	})
}

// FuzzStatus: a /proc/TID/status, in which a target's name is what the target says, is ids or an error.
func FuzzStatus(f *testing.F) {
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own))
	f.Add(string(own[:len(own)/2]))
	f.Add("Tgid:\t1\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t\nCapInh:\t0\nCapPrm:\tffffffffffffffff\nCapEff:\t0\nCapBnd:\t0\nCapAmb:\t0\nUmask:\t0022\n")
	f.Add("Uid:\t0\t0\t0\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseStatus(text)
		if err != nil {
			return
		}
		for line := range strings.Lines(text) { // nothing is taken for what it is not
			if strings.HasPrefix(line, "CapEff:") {
				return
			}
		}
		if s.ids.Effective != 0 {
			t.Errorf("capabilities %#x of %q", s.ids.Effective, text)
		}
	})
}

// FuzzMaps: a /proc/TID/maps says of at most as many bytes as were asked for that they may be used.
func FuzzMaps(f *testing.F) {
	own, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own), uint64(0x400000), 10000, uint64(mayRead))
	f.Add("1000-3000 rw-p 0 0:0 0\n3000-4000 r--p 0 0:0 0 /x\n", uint64(0x2000), 0x1800, uint64(mayWrite))
	f.Add("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n", uint64(0xffffffffff600000), 16, uint64(mayRead))
	f.Add("0-ffffffffffffffff rwxp", ^uint64(0)-4, 16, uint64(mayRead))
	f.Fuzz(func(t *testing.T, text string, addr uint64, n int, use uint64) {
		if n < 0 || n > 1<<30 {
			return // never asked for
		}
		got, err := textUpTo(strings.NewReader(text), addr, n, access(use)&(mayRead|mayWrite))
		if got < 0 || got > n || err != nil && got != 0 {
			t.Errorf("%d of %d bytes at %#x, %v: %q", got, n, addr, err, text)
		}
	})
}
