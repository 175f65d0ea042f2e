package rules

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openFile(t *testing.T, path string) *File {
	t.Helper()
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func write(t *testing.T, f *File, text string) {
	t.Helper()
	if n, err := f.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("%d of %d bytes: %v", n, len(text), err)
	}
}

func has(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); string(got) != want || err != nil {
		t.Errorf("%s has %q, %v; want %q", filepath.Base(path), got, err, want)
	}
}

// What is renamed keeps what was written before, and the rest goes where the name is.
func TestFileIsOpenedAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	f := openFile(t, path)
	write(t, f, "a\n")
	if err := errors.Join(f.Reopen(), f.Reopen()); err != nil {
		t.Fatal(err)
	}
	write(t, f, "b\nbegun")
	if err := f.Reopen(); err != nil { // it is the same file, which goes on
		t.Fatal(err)
	}
	write(t, f, " c\nhalf a ")
	if err := errors.Join(os.Rename(path, path+".1"), f.Reopen()); err != nil {
		t.Fatal(err)
	}
	write(t, f, "rec")
	if err := errors.Join(os.Rename(path, path+".2"), f.Reopen()); err != nil {
		t.Fatal(err)
	}
	write(t, f, "ord\nd\n")
	has(t, path+".1", "a\nb\nbegun c\nhalf a ")
	has(t, path+".2", "half a rec")
	has(t, path, "half a record\nd\n")
	if err := errors.Join(os.Rename(path, path+".3"), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := f.Reopen(); !errors.Is(err, unix.EISDIR) {
		t.Error(err)
	}
	write(t, f, "e\n")
	has(t, path+".3", "half a record\nd\ne\n")
}

// A file whose last writer was killed in the midst of a record has the next one on a line of its own.
func TestFileThatIsTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	for _, c := range []struct{ is, want string }{{"", "a\nb\n"}, {"x\n", "x\na\nb\n"}, {"x\ny", "x\ny\na\nb\n"}} {
		if err := os.WriteFile(path, []byte(c.is), 0o600); err != nil {
			t.Fatal(err)
		}
		f := openFile(t, path)
		write(t, f, "a\n")
		write(t, f, "b\n")
		has(t, path, c.want)
	}
}

// Who opens a pipe without a reader is told, and one that is not read holds up nobody who opens the name anew.
func TestFileOfPipes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(path); err == nil || !strings.Contains(err.Error(), "nobody reads") {
		t.Fatal(err)
	}
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f := openFile(t, path)
	text := strings.Repeat("a record, and another\n", 10000) // more than a pipe holds
	n := 0
	for n == 0 { // a busy machine may not come to write by then
		if err := f.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err = f.Write([]byte(text))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == len(text) {
		t.Fatalf("%d of %d bytes: %v", n, len(text), err)
	}
	if err := f.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	type result struct {
		n   int
		err error
	}
	done := make(chan result)
	go func() {
		n, err := f.Write([]byte(text[n:]))
		done <- result{n, err}
	}()
	if err := errors.Join(os.Rename(path, path+".1"), f.Reopen()); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got.n != len(text)-n || got.err != nil {
		t.Fatalf("%+v", got)
	}
	has(t, path, text[strings.LastIndexByte(text[:n], '\n')+1:])
	_ = f.Close()
	if got, err := io.ReadAll(r); string(got) != text[:n] || err != nil {
		t.Errorf("the pipe has %d bytes of %d, %v", len(got), n, err)
	}
	if _, err := f.Write([]byte("x\n")); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}
