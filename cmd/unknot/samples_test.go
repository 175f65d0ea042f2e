package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// sampleOf is a second of calls that come by themselves, to handlers that sleep for so long.
func sampleOf(minute int, rate float64, service time.Duration) *record.Recording {
	r := rand.New(rand.NewPCG(1, uint64(minute)))
	rec := &record.Recording{Start: time.Unix(1.7e9, 0).UTC().Add(time.Duration(minute) * time.Minute), Elapsed: time.Second, CPUs: 2, Syscalls: []record.Syscall{{Arch: notify.NativeArch, NR: unix.SYS_GETPPID}}}
	for at := 0.; ; {
		if at += r.ExpFloat64() / rate; at > .9 {
			return rec
		}
		rec.Calls = append(rec.Calls, record.Call{Arrival: int64(at * 1e9), Receive: 1000, Wait: 1000, Service: int64(service), Away: int64(service),
			Thread: int32(rec.Threads), Dispatch: record.Checked, Trapped: true, Blocked: true})
		rec.Threads++
	}
}

func writeSamples(t *testing.T, path string, n int, service func(i int) time.Duration) {
	t.Helper()
	w := record.NewSampleFile(path)
	for i := range n {
		if err := w.Add(sampleOf(20*i, 50, service(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTuneFromSamples: of a file of samples it is said over which parts of its time a choice holds; one sample is a recording as
// any; and what is no whole sample is left out.
func TestTuneFromSamples(t *testing.T) {
	path := filepath.Join(t.TempDir(), "day.ukr")
	writeSamples(t, path, 3, func(i int) time.Duration { return []time.Duration{1, 40, 1}[i] * time.Millisecond })
	tune := func(want int, args ...string) string {
		t.Helper()
		var out, said bytes.Buffer
		if code := run(t.Context(), append([]string{"tune", "--target", "wait-p99=20ms", "--max-drop", "10%"}, args...), nil, &out, &said); code != want {
			t.Errorf("%v: exit code %d, want %d", args, code, want)
		}
		return out.String() + said.String()
	}
	text := tune(1, "--from", path, "--from", path+"#3")
	for _, want := range []string{path + " 11-14T22:13:20Z ", path + "#3 ", " holds for 3 of 4\n", path + " 11-14T22:33:20Z: no depth can meet this: service is 40", "add workers\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-10); err != nil {
		t.Fatal(err)
	}
	if text := tune(0, "--workers", "16", "--from", path); !strings.Contains(text, "bytes are no whole sample, and left out") || !strings.Contains(text, " holds for all 2\n") {
		t.Errorf("a file that was cut, with 16 workers: %s", text)
	}
}

// TestPartsOfSamples: a day is so many parts, of which some samples are looked at, far apart, if there are many calls.
func TestPartsOfSamples(t *testing.T) {
	path := filepath.Join(t.TempDir(), "day.ukr")
	const n = 2*samplesParts + 1
	writeSamples(t, path, n, func(int) time.Duration { return time.Millisecond })
	s, err := record.OpenSamples(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	parts, samples := 0, time.Duration(0)
	if err := fromSamples(io.Discard, path, s, func(name, _ string, rec *record.Recording) error {
		parts++
		samples += rec.Elapsed
		if parts == 1 && name != path+" 11-14T22:13:20Z (2)" || parts == samplesParts && !strings.HasSuffix(name, " (3)") {
			t.Errorf("part %d is %q", parts, name)
		}
		return nil
	}); err != nil || parts != samplesParts || samples != n*time.Second {
		t.Errorf("%d parts of %v, %v", parts, samples, err)
	}
}
