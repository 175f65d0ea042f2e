package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A File is what an Audit appends to. It can be opened anew under its name, as whoever rotates it wants, at any moment: a
// record that is being written then is whole in the next file, and so is the first one after another writer's that broke off.
type File struct {
	path string

	mu   sync.Mutex
	f    *os.File
	torn bool // it ended in the midst of a line when it was opened

	// Of the writer, who is one at a time:
	in   *os.File // has line but for what is owed
	line []byte   // the record that is being written, as far as it was taken
	owed []byte
}

var _ io.WriteCloser = (*File)(nil)

// OpenFile opens a file, which is made if it is not there. A named pipe must have its reader.
func OpenFile(path string) (*File, error) {
	f := &File{path: path}
	if err := f.Reopen(); err != nil {
		return nil, err
	}
	return f, nil
}

// Reopen opens the file's name anew. After an error it goes on with the one that it has. It does not wait for a write.
func (f *File) Reopen() error {
	// Who opens a pipe waits for its reader, without this; and who writes could not be told to stop.
	next, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("open %s: a pipe that nobody reads: start its reader first", f.path)
	}
	if err != nil {
		return err
	}
	fi, err := next.Stat()
	if err != nil {
		_ = next.Close()
		return err
	}
	torn := endsTorn(f.path, fi)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		f.f, f.torn = next, torn
		return nil
	}
	if now, err := f.f.Stat(); err == nil && os.SameFile(now, fi) {
		return next.Close()
	}
	old := f.f
	f.f, f.torn = next, torn
	_ = old.Close()
	return nil
}

// endsTorn reports whether a file's last line does not end: who wrote it was killed, or the disk was full.
func endsTorn(path string, fi os.FileInfo) bool {
	if !fi.Mode().IsRegular() || fi.Size() == 0 {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false // one may append to it, and not read
	}
	defer f.Close()
	last := []byte{'\n'}
	_, _ = f.ReadAt(last, fi.Size()-1)
	return last[0] != '\n'
}

// Write appends to the file that has the name since it was last opened.
func (f *File) Write(p []byte) (n int, err error) {
	for {
		f.mu.Lock()
		now, torn := f.f, f.torn
		f.mu.Unlock()
		if now != f.in {
			f.in, f.owed = now, nil
			if torn {
				f.owed = append(f.owed, '\n')
			}
			f.owed = append(f.owed, f.line...)
		}
		k, err := f.append(p[n:])
		n += k
		if !errors.Is(err, os.ErrClosed) {
			return n, err
		}
		f.mu.Lock()
		same := f.f == now
		f.mu.Unlock()
		if same {
			return n, err
		}
	}
}

func (f *File) append(p []byte) (n int, err error) {
	for len(f.owed) > 0 {
		k, err := f.in.Write(f.owed)
		f.owed = f.owed[k:]
		if err != nil {
			return 0, err
		}
	}
	n, err = f.in.Write(p)
	if i := bytes.LastIndexByte(p[:n], '\n'); i >= 0 {
		f.line = append(f.line[:0], p[i+1:n]...)
	} else {
		f.line = append(f.line, p[:n]...)
	}
	return n, err
}

// SetWriteDeadline ends a write that waits, where the file is one that can be told.
func (f *File) SetWriteDeadline(t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.f.SetWriteDeadline(t)
}

// Close closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.f.Close()
}
