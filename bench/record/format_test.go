package record

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// example is a recording with something of everything.
func example(calls int) *Recording {
	r := rand.New(rand.NewPCG(1, 2))
	rec := &Recording{Start: time.Unix(1700000000, 0).UTC(), CPUs: 2, Threads: 3,
		Syscalls: []Syscall{{0xc000003e, 110}, {0x40000003, 64}, {0xc000003e, -1}}, Lost: Lost{1, 2, 3, 1 << 63}}
	at := int64(0)
	for i := range calls {
		at += r.Int64N(20_000)
		c := Call{Arrival: at, Receive: r.Int64N(5000), Service: r.Int64N(1e9), Thread: int32(i % 3), Syscall: int32(i % 3),
			Outcome: Outcome(i % 3), Dispatch: Dispatch(i / 3 % 3), Trapped: true, Blocked: i%2 == 0, Slept: i%5 == 0}
		if c.Dispatch != Unseen {
			c.Wait = r.Int64N(1e6)
		}
		if i%7 == 0 {
			c.Trapped, c.Receive = false, 0
		}
		rec.Calls = append(rec.Calls, c)
	}
	rec.Elapsed = time.Duration(at + 1)
	return rec
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	want := example(1000)
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "r")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read\n%+v\nwritten\n%+v", got, want)
	}
	if per := float64(len(b)) / 1000; per > 16 {
		t.Errorf("%v bytes for each call", per)
	}
}

func reseal(b []byte) []byte {
	binary.LittleEndian.PutUint64(b[len(magic)+4:], uint64(len(b)))
	binary.LittleEndian.PutUint32(b[len(b)-crcSize:], crc32.Checksum(b[:len(b)-crcSize], castagnoli))
	return b
}

func TestWhatIsNoRecordingIsRefused(t *testing.T) {
	whole, err := example(40).Encode()
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(b []byte) []byte) string { return string(change([]byte(string(whole)))) }
	version := func(v uint32) string {
		return with(func(b []byte) []byte { binary.LittleEndian.PutUint32(b[len(magic):], v); return b })
	}
	noCalls := append([]byte(magic), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	noCalls = append(noCalls, 1, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	for _, c := range []struct{ name, file, want string }{
		{"an empty file", "", "the file is empty"},
		{"no calls", string(reseal(noCalls)), "no calls"},
		{"text", "BenchmarkStorm 1 1 ns/op\n", "it is no recording"},
		{"short text", "x", "it is no recording"},
		{"line ends changed", strings.Replace(string(whole), "\r\n", "\n", 1), "it is no recording"},
		{"a newer version", version(2), "of version 2, and this program reads version 1: use a newer one"},
		{"an older version", version(0), "of version 0, and this program reads version 1: record anew"},
		{"a byte changed", with(func(b []byte) []byte { b[60] ^= 1; return b }), "its checksum is wrong"},
		{"a byte too many", string(whole) + "x", "should have"},
		{"a body cut and sealed", string(reseal([]byte(string(whole[:len(whole)-9])))), "damaged"},
		{"a large length", with(func(b []byte) []byte { b[len(magic)+11] = 0xff; return b }), "at most"},
	} {
		r, err := read(strings.NewReader(c.file))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v; want an error with %q", c.name, r, err, c.want)
		}
	}
	for _, name := range []string{"", string(reseal(noCalls))} {
		if _, err := read(strings.NewReader(name)); !errors.Is(err, ErrEmpty) {
			t.Errorf("%q: %v, want ErrEmpty", name, err)
		}
	}
	for n := 1; n < len(whole); n++ {
		if _, err := read(strings.NewReader(string(whole[:n]))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
	var other *versionError
	if _, err := read(strings.NewReader(version(7))); !errors.As(err, &other) || other.Version != 7 {
		t.Errorf("version 7: %v", err)
	}
}

func TestContradictionsAreNotWritten(t *testing.T) {
	for name, spoil := range map[string]func(*Recording){
		"no calls":                 func(r *Recording) { r.Calls = nil },
		"no length":                func(r *Recording) { r.Elapsed = 0 },
		"no CPUs":                  func(r *Recording) { r.CPUs = 0 },
		"more threads than calls":  func(r *Recording) { r.Threads = 1000 },
		"no system calls":          func(r *Recording) { r.Syscalls = nil },
		"out of order":             func(r *Recording) { r.Calls[3].Arrival = 0 },
		"after the end":            func(r *Recording) { r.Elapsed = 1 },
		"negative service":         func(r *Recording) { r.Calls[3].Service = -1 },
		"an unknown thread":        func(r *Recording) { r.Calls[3].Thread = 3 },
		"an unknown system call":   func(r *Recording) { r.Calls[3].Syscall = 3 },
		"an unknown outcome":       func(r *Recording) { r.Calls[3].Outcome = 3 },
		"a wait without dispatch":  func(r *Recording) { r.Calls[0].Wait = 1 },
		"a receive without a trap": func(r *Recording) { r.Calls[0].Receive = 1 },
	} {
		r := example(20)
		spoil(r)
		if b, err := r.Encode(); err == nil {
			t.Errorf("%s: written, %d bytes", name, len(b))
		}
	}
}

// FuzzRead: whatever is read, it does not panic, and what it takes for a
// recording is written and read as the same. Bytes are sealed, so that the fuzzer
// gets past the checksum.
func FuzzRead(f *testing.F) {
	b, err := example(20).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, false)
	f.Add(b, true)
	f.Add(b[:30], true)
	f.Add([]byte(magic+"\x02\x00\x00\x00"), false)
	// Numbers of system calls and calls that are not there.
	f.Add(append([]byte(magic+"\x01\x00\x00\x00........\x01\x09\x01\x01\x00\x00\x00\x00"), 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0), true)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal && len(b) >= fixedSize+crcSize {
			b = reseal(b)
		}
		r, err := read(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		if len(r.Calls) > len(b)/minCall || len(r.Syscalls) > len(b) {
			t.Fatalf("%d calls, %d system calls from %d bytes", len(r.Calls), len(r.Syscalls), len(b))
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		same, err := read(strings.NewReader(string(again)))
		if err != nil || !reflect.DeepEqual(r, same) {
			t.Fatalf("read again: %v", err)
		}
		r.Service()
		r.Think()
		r.Burstiness()
		r.Feedback()
		r.InFlight()
	})
}
