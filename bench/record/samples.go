package record

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Sampler records a supervisor for a while, again and again. Config.Duration and Config.MaxCalls are those of all samples together.
type Sampler struct {
	Config
	Every, For time.Duration
	// Find says which process is the supervisor before each sample but the first, and false while there is none. If nil, it is
	// always Config.PID, and its end is the end of all.
	Find func() (pid int, ok bool)

	record func(context.Context, Config) (*Recording, error) // a test's; nil: Record
}

// Sampled counts what became of samples.
type Sampled struct {
	Taken int // have calls
	Full  int // of these: ended before their time, since they had their share of the calls
	Empty int // no call came
	Away  int // there was no supervisor
	Late  int // the machine was so busy that they would have begun after the next one
}

// Run takes a sample in each period of s.Every, the first at once and the others at a moment that is drawn anew, so that what
// happens once in a period is neither always seen nor never. Each may have an equal part of the calls that are left: one that
// has more ends sooner, and its rate is still right. Run ends when ctx does, after as many periods as the duration has, or at an error, that of
// take included; what was recorded until then, take has got.
func (s *Sampler) Run(ctx context.Context, take func(*Recording) error) (n Sampled, err error) {
	if s.For <= 0 || s.For >= s.Every || s.Duration < s.Every {
		return n, fmt.Errorf("record: samples of %v, every %v, for %v: each must be longer than the one before", s.For, s.Every, s.Duration)
	}
	record := s.record
	if record == nil {
		record = Record
	}
	begun := time.Now()
	periods, left := int(s.Duration/s.Every), s.MaxCalls
	for i := 0; i < periods && left > 0; i++ {
		if i > 0 {
			if now := int(time.Since(begun) / s.Every); now > i {
				n.Late += min(now, periods) - i
				if i = now; i >= periods {
					break
				}
			}
			if !sleepUntil(ctx, begun.Add(time.Duration(i)*s.Every+rand.N(s.Every-s.For))) {
				break
			}
		}
		c := s.Config
		c.Duration, c.MaxCalls = s.For, max(1, left/(periods-i))
		if i > 0 && s.Find != nil {
			var ok bool
			if c.PID, ok = s.Find(); !ok {
				n.Away++
				continue
			}
		}
		r, err := record(ctx, c)
		switch {
		case errors.Is(err, ErrEmpty) && ctx.Err() != nil:
			continue // it had no time
		case errors.Is(err, ErrEmpty):
			n.Empty++
			continue
		case errors.Is(err, unix.ESRCH) && i > 0:
			n.Away++
			if s.Find == nil {
				return n, nil
			}
			continue
		case err != nil:
			return n, err
		}
		n.Taken++
		if len(r.Calls) >= c.MaxCalls && r.Elapsed < s.For {
			n.Full++
		}
		left -= len(r.Calls)
		if err := take(r); err != nil {
			return n, err
		}
	}
	return n, nil
}

// sleepUntil reports whether ctx still goes on then.
func sleepUntil(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}

// A SampleFile is a file of samples that is being written: recordings, one after another. Whatever happens meanwhile, those that
// were added are whole.
type SampleFile struct {
	path string
	f    interface {
		io.WriterAt
		io.Closer
		Truncate(int64) error
		Sync() error
	}
	size int64
}

// NewSampleFile is one that is made with its first sample. There must be none of that name then.
func NewSampleFile(path string) *SampleFile { return &SampleFile{path: path} }

// Size is that of all samples in bytes.
func (w *SampleFile) Size() int64 { return w.size }

// Add appends a sample, and has it on the disk when it returns. After an error the file is as before, and Add can be tried again.
func (w *SampleFile) Add(r *Recording) error {
	b, err := r.Encode()
	if err != nil {
		return err
	}
	if w.f == nil {
		f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return err
		}
		w.f = f
	}
	if _, err = w.f.WriteAt(b, w.size); err == nil {
		err = w.f.Sync()
	}
	switch {
	case err != nil && w.size == 0: // no file without a sample
		err = errors.Join(err, w.f.Close(), os.Remove(w.path))
		w.f = nil
		return err
	case err != nil:
		return errors.Join(err, w.f.Truncate(w.size))
	}
	w.size += int64(len(b))
	return nil
}

// Close ends it.
func (w *SampleFile) Close() error {
	if w.f == nil {
		return nil
	}
	return w.f.Close()
}

// Samples are the recordings of a file, which may be one.
type Samples struct {
	f     *os.File
	parts []span
	Cut   int64 // bytes at the end that are no whole recording: whoever wrote it was killed meanwhile
}

type span struct{ at, size int64 }

// OpenSamples looks how many recordings a file has, and reads none.
func OpenSamples(path string) (*Samples, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s := &Samples{f: f}
	if err := s.index(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func (s *Samples) index() error {
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	whole := info.Size()
	for at := int64(0); at < whole; {
		var head [fixedSize]byte
		n, err := s.f.ReadAt(head[:], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		size := binary.LittleEndian.Uint64(head[len(magic)+4:])
		begins := bytes.HasPrefix([]byte(magic), head[:min(n, len(magic))])
		if at > 0 && !begins {
			return fmt.Errorf("the recording is damaged: what follows its first %d bytes is no sample", at)
		}
		if n < len(head) || size > uint64(whole-at) || size < uint64(fixedSize+crcSize) {
			if at > 0 {
				s.Cut = whole - at
				return nil
			}
			size = uint64(whole) // whatever it is, it is all of it, and reading it says so
		}
		s.parts = append(s.parts, span{at, int64(size)})
		at += int64(size)
	}
	if whole == 0 {
		s.parts = []span{{}}
	}
	return nil
}

// Len is how many there are.
func (s *Samples) Len() int { return len(s.parts) }

// Size is how many bytes one has.
func (s *Samples) Size(i int) int64 { return s.parts[i].size }

// Read reads one, from 0 on.
func (s *Samples) Read(i int) (*Recording, error) {
	p := s.parts[i]
	r, err := read(io.NewSectionReader(s.f, p.at, p.size))
	if err != nil && len(s.parts) > 1 {
		return nil, fmt.Errorf("%s#%d: %w", s.f.Name(), i+1, err)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", s.f.Name(), err)
	}
	return r, nil
}

// Close closes the file.
func (s *Samples) Close() error { return s.f.Close() }

// A manyError says that a file has several recordings where one is asked for.
type manyError struct {
	path string
	n    int
}

func (e *manyError) Error() string {
	return fmt.Sprintf("%s has %d samples: say which, from %s#1 to %s#%d", e.path, e.n, e.path, e.path, e.n)
}

// ReadFile reads the recording of a file. Of a file of samples it reads the one whose number, from 1 on, follows a # in path.
func ReadFile(path string) (*Recording, error) {
	number := 0
	if i := strings.LastIndexByte(path, '#'); i >= 0 {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			if n, err := strconv.Atoi(path[i+1:]); err == nil && n > 0 {
				path, number = path[:i], n
			}
		}
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // a pipe has no size
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r, err := read(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return r, nil
	}
	s, err := OpenSamples(path)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	switch {
	case number > s.Len():
		return nil, fmt.Errorf("%s has %d samples, and no #%d", path, s.Len(), number)
	case number == 0 && s.Len() > 1:
		return nil, &manyError{path, s.Len()}
	}
	return s.Read(max(number-1, 0))
}

// Join makes samples one recording, as if each had begun where the one before ended. Threads of two samples count as
// two; AtOnce has how many there were of one sample at most.
func Join(samples []*Recording) *Recording {
	all := &Recording{Start: samples[0].Start, CPUs: samples[0].CPUs}
	syscalls := map[Syscall]int32{}
	for _, r := range samples {
		for i := range r.Calls {
			c := r.Calls[i]
			c.Arrival += int64(all.Elapsed)
			c.Thread += int32(all.Threads)
			name := r.Syscalls[c.Syscall]
			if c.Syscall = index(syscalls, name); int(c.Syscall) == len(all.Syscalls) {
				all.Syscalls = append(all.Syscalls, name)
			}
			all.Calls = append(all.Calls, c)
		}
		all.Elapsed += r.Elapsed
		all.Threads += r.Threads
		all.atOnce = max(all.atOnce, r.AtOnce())
		all.Lost.Add(r.Lost)
	}
	return all
}

// AtOnce is how many threads made calls: of a joined recording, in the sample that had most.
func (r *Recording) AtOnce() int {
	if r.atOnce > 0 {
		return r.atOnce
	}
	return r.Threads
}
