package record

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/bench/trace"
	"golang.org/x/sys/unix"
)

// TestSampler: each sample has its share of the calls, a supervisor that is away is waited for, and what was recorded is handed over
// also when an interrupt comes meanwhile.
func TestSampler(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const every = 2 * time.Millisecond
	periods := int(time.Hour / every)
	var pids []int
	s := Sampler{Config: Config{PID: 1, Duration: time.Hour, MaxCalls: 10 * periods}, Every: every, For: time.Millisecond}
	finds := 0
	s.Find = func() (int, bool) { finds++; return 2, finds > 3 }
	s.record = func(ctx context.Context, c Config) (*Recording, error) {
		pids = append(pids, c.PID)
		if c.Duration != s.For || c.MaxCalls < 10 || c.MaxCalls > 11 {
			t.Fatalf("sample %d: %+v", len(pids), c)
		}
		switch len(pids) {
		case 1:
			r := example(c.MaxCalls)
			r.Elapsed = s.For - 1
			return r, nil
		case 2:
			return nil, ErrEmpty
		case 3:
			return nil, unix.ESRCH
		case 4:
			cancel()
		}
		r := example(4)
		r.Elapsed = s.For
		return r, nil
	}
	got := 0
	n, err := s.Run(ctx, func(r *Recording) error { got += len(r.Calls); return nil })
	n.Late = 0 // a busy machine's
	if want := (Sampled{Taken: 2, Full: 1, Empty: 1, Away: 4}); err != nil || n != want || got != 14 {
		t.Errorf("%+v, %d calls, %v; want %+v", n, got, err, want)
	}
	if want := []int{1, 2, 2, 2}; !reflect.DeepEqual(pids, want) {
		t.Errorf("recorded %v, want %v", pids, want)
	}

	// The calls are a bound, an error of the first sample is one of all, and so is one of take.
	s.record = func(_ context.Context, c Config) (*Recording, error) { return example(c.MaxCalls), nil }
	s.Find, s.MaxCalls, s.Duration = nil, 7, 3*every
	if n, err := s.Run(t.Context(), func(*Recording) error { return io.ErrShortWrite }); !errors.Is(err, io.ErrShortWrite) || n.Taken != 1 {
		t.Errorf("%+v, %v", n, err)
	}
	got = 0
	if _, err := s.Run(t.Context(), func(r *Recording) error { got += len(r.Calls); return nil }); err != nil || got == 0 || got > 7 {
		t.Errorf("%d calls of 7: %v", got, err)
	}
	s.record = func(context.Context, Config) (*Recording, error) { return nil, unix.ESRCH }
	if _, err := s.Run(t.Context(), nil); !errors.Is(err, unix.ESRCH) {
		t.Errorf("no supervisor: %v", err)
	}
	s.For = s.Every
	if _, err := s.Run(t.Context(), nil); err == nil {
		t.Error("samples that touch are taken")
	}
}

// A smallDisk has room for so many bytes.
type smallDisk struct {
	*os.File
	room int64
}

func (d *smallDisk) WriteAt(b []byte, at int64) (int, error) {
	if free := d.room - at; int64(len(b)) > free {
		n, _ := d.File.WriteAt(b[:free], at)
		return n, unix.ENOSPC
	}
	return d.File.WriteAt(b, at)
}

// TestSampleFile: whatever happens to it, what was added is read.
func TestSampleFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "day.ukr")
	w := NewSampleFile(path)
	var samples []*Recording
	add := func(calls int) error {
		r := example(calls)
		err := w.Add(r)
		if err == nil {
			samples = append(samples, r)
		}
		return err
	}
	for _, n := range []int{20, 30} {
		if err := add(n); err != nil {
			t.Fatal(err)
		}
	}
	disk := &smallDisk{w.f.(*os.File), w.Size() + 100}
	w.f = disk
	if err := add(25); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
	check := func(what string, cut int64) {
		t.Helper()
		s, err := OpenSamples(path)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer s.Close()
		if s.Len() != len(samples) || s.Cut != cut {
			t.Fatalf("%s: %d samples and %d bytes, want %d and %d", what, s.Len(), s.Cut, len(samples), cut)
		}
		for i, want := range samples {
			if got, err := s.Read(i); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: sample %d: %v", what, i, err)
			}
		}
	}
	check("after a full disk", 0)
	disk.room = 1 << 20
	if err := add(40); err != nil {
		t.Fatal(err)
	}
	check("once there is room again", 0)
	if err := NewSampleFile(path).Add(samples[0]); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file that exists: %v", err)
	}

	for i, want := range samples {
		if got, err := ReadFile(path + "#" + string(rune('1'+i))); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("#%d: %v", i+1, err)
		}
	}
	for at, want := range map[string]string{"": "has 3 samples: say which", "#4": "has 3 samples, and no #4", "#x": "no such file", "#0": "no such file"} {
		if _, err := ReadFile(path + at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", at, err, want)
		}
	}

	// Whoever wrote it was killed meanwhile: at any byte.
	size := w.Size()
	whole, err := example(5).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := w.f.WriteAt(whole[:n], size); err != nil {
			t.Fatal(err)
		}
		check("cut", int64(n))
	}
	if _, err := w.f.WriteAt([]byte("something else"), size); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSamples(path); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("what is no sample: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestJoin(t *testing.T) {
	a, b := example(30), example(40)
	for _, r := range []*Recording{a, b} { // threads that call again
		for i := range r.Calls {
			r.Calls[i].Service, r.Calls[i].Away, r.Calls[i].Wait, r.Calls[i].Receive, r.Calls[i].Outcome = 100, 0, 0, 0, Served
		}
	}
	b.Syscalls[1] = Syscall{1, 2}
	r := Join([]*Recording{a, b})
	if err := r.check(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Encode(); err != nil {
		t.Fatal(err)
	}
	if r.Elapsed != a.Elapsed+b.Elapsed || len(r.Calls) != 70 || r.Threads != 6 || r.AtOnce() != 3 || len(r.Syscalls) != 4 || r.Lost.Unmatched != 4 {
		t.Errorf("%v, %d calls of %d threads, %d at once, %v, %+v", r.Elapsed, len(r.Calls), r.Threads, r.AtOnce(), r.Syscalls, r.Lost)
	}
	// Nothing is said of the time between two samples.
	if got, want := r.Think().Times.Count, a.Think().Times.Count+b.Think().Times.Count; got != want || want == 0 {
		t.Errorf("%d think times, want %d", got, want)
	}
	if got, want := r.Service().Times.Sum, a.Service().Times.Sum+b.Service().Times.Sum; got != want {
		t.Errorf("services of %d, want %d", got, want)
	}
}

// TestSamplesOfASupervisor are real ones.
func TestSamplesOfASupervisor(t *testing.T) {
	if err := trace.Probe(); err != nil {
		t.Skip(err)
	}
	spec := bench.Spec{Engine: "unknot", Path: bench.PathQueue, Targets: 4, Workers: 2, Queue: 64}
	sup, err := bench.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s.ukr")
	w := NewSampleFile(path)
	storming(t, sup, spec, func(*storm.Storm) {
		ctx, cancel := context.WithTimeout(t.Context(), testDeadline)
		defer cancel()
		s := Sampler{Config: Config{PID: os.Getpid(), Duration: time.Hour, MaxCalls: MaxCalls}, Every: 50 * time.Millisecond, For: 20 * time.Millisecond}
		taken := 0
		if n, err := s.Run(ctx, func(r *Recording) error {
			if taken++; taken == 3 {
				cancel()
			}
			return w.Add(r)
		}); err != nil || n.Taken != 3 {
			t.Fatalf("%+v, %v", n, err)
		}
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSamples(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range s.Len() {
		if r, err := s.Read(i); err != nil || r.Threads > 4 || len(r.Calls) == 0 {
			t.Errorf("sample %d: %+v, %v", i, r, err)
		}
	}
}
