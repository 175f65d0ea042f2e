package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// within waits for what must come.
func within(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}

// read checks that all lines are whole, and counts the records and what the file says was dropped.
func read(t *testing.T, text string) (records, dropped uint64) {
	t.Helper()
	for line := range strings.Lines(text) {
		var r struct{ N, Dropped uint64 }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Errorf("%v: %q", err, line)
		}
		if r.Dropped > 0 {
			dropped += r.Dropped
		} else {
			records++
		}
	}
	return records, dropped
}

func line(i int) []byte {
	return fmt.Appendf(nil, "{\"n\":%d,\"pad\":%q}\n", i, strings.Repeat("x", i%90))
}

// A writer is what a test says.
type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// Who writes down a call waits for nobody: with a reader that does not read records are dropped, and the file says how many.
func TestAuditNeverWaits(t *testing.T) {
	const threads, each = 4, 5000
	var out bytes.Buffer
	hold := make(chan bool)
	a := NewAudit(writer(func(p []byte) (int, error) {
		<-hold
		return out.Write(p)
	}), AuditOptions{Buffer: 10000})
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			for i := range each {
				a.add(line(i))
			}
		})
	}
	wg.Wait() // with nothing written
	c := a.Counts()
	if c.Written != 0 || c.Dropped == 0 || c.Waiting == 0 || c.Dropped+c.Waiting != threads*each {
		t.Errorf("%+v", c)
	}
	close(hold)
	within(t, "what waits is written", func() bool { return a.Counts().Waiting == 0 })
	a.add(line(1))
	var lost *DroppedError
	if err := a.Close(); !errors.As(err, &lost) || lost.Records != c.Dropped {
		t.Errorf("%v", err)
	}
	after := a.Counts()
	records, dropped := read(t, out.String())
	if records != after.Written || dropped != after.Dropped || records+dropped != threads*each+1 {
		t.Errorf("the file has %d, and %d dropped: %+v", records, dropped, after)
	}
}

// A disk that is full, in the midst of a record, and has room again later.
func TestAuditFullDisk(t *testing.T) {
	var out bytes.Buffer
	var mu sync.Mutex
	room := 300
	a := NewAudit(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		n := min(len(p), room)
		room -= n
		out.Write(p[:n])
		if n < len(p) {
			return n, unix.ENOSPC
		}
		return n, nil
	}), AuditOptions{Buffer: 4000, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	const n = 300
	for i := range n {
		a.add(line(i))
		if i == 20 {
			within(t, "an error", func() bool { return a.Counts().Errors > 0 })
		}
	}
	c := a.Counts()
	if c.Dropped == 0 || c.Written == 0 || c.Written+c.Dropped+c.Waiting != n {
		t.Errorf("%+v", c)
	}
	mu.Lock()
	room = 1 << 30
	mu.Unlock()
	within(t, "writing again", func() bool { return a.Counts().Waiting == 0 })
	a.add(line(1))
	_ = a.Close()
	after := a.Counts()
	records, dropped := read(t, out.String())
	if records != after.Written || dropped != after.Dropped || records+dropped != n+1 {
		t.Errorf("the file has %d, and %d dropped: %+v", records, dropped, after)
	}
}

// A device without room at all: Close ends, and all that there was is counted. It is said once.
func TestAuditNoRoom(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	var said bytes.Buffer
	a := NewAudit(f, AuditOptions{Logger: slog.New(slog.NewTextHandler(&said, nil))})
	for i := range 100 {
		a.add(line(i))
	}
	within(t, "three errors", func() bool { return a.Counts().Errors >= 3 })
	err = a.Close()
	if c := a.Counts(); err == nil || c.Written != 0 || c.Waiting != 0 || c.Dropped != 100 {
		t.Errorf("%v, %+v", err, c)
	}
	if n := strings.Count(said.String(), "\n"); n != 1 || !strings.Contains(said.String(), "no space left") {
		t.Errorf("said %d times: %s", n, said.String())
	}
}

// The reader of a pipe goes, and another one comes: it reads on where that one was.
func TestAuditReaderGoes(t *testing.T) {
	fifo := t.TempDir() + "/fifo"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(flags int) *os.File {
		f, err := os.OpenFile(fifo, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	first := open(os.O_RDONLY | unix.O_NONBLOCK)
	w := open(os.O_WRONLY)
	defer w.Close()
	a := NewAudit(w, AuditOptions{Buffer: 1 << 20})
	const n = 3000 // more than a pipe holds, so that the reader goes in the midst of a record
	for i := range n {
		a.add(line(i))
	}
	within(t, "the pipe is full", func() bool { return a.Counts().Written > 0 })
	first.Close()
	within(t, "an error", func() bool { return a.Counts().Errors > 0 })
	second := open(os.O_RDONLY)
	got := make(chan string)
	go func() {
		b, _ := io.ReadAll(second)
		got <- string(b)
	}()
	within(t, "written again", func() bool { return a.Counts().Waiting == 0 })
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	w.Close()
	records, _ := read(t, <-got)
	if c := a.Counts(); c.Written != n || records != n {
		t.Errorf("%d records: %+v", records, c)
	}
}

// Close does not wait for a reader that does not read.
func TestAuditCloseWaitsForNobody(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	a := NewAudit(w, AuditOptions{Close: 50 * time.Millisecond})
	const n = 5000
	for i := range n {
		a.add(line(i))
	}
	err = a.Close()
	c := a.Counts()
	if err == nil || c.Waiting != 0 || c.Dropped == 0 || c.Written+c.Dropped != n {
		t.Errorf("%v, %+v", err, c)
	}
	w.Close()
	b, _ := io.ReadAll(r)
	if whole := uint64(bytes.Count(b, []byte{'\n'})); whole != c.Written {
		t.Errorf("the pipe has %d records: %+v", whole, c)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	a.add(line(1))
	if got := a.Counts(); got.Dropped != c.Dropped+1 {
		t.Errorf("after Close: %+v", got)
	}
}
