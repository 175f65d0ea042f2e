package rules

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// An AuditOptions sets up an Audit. The zero value is right for most.
type AuditOptions struct {
	// Buffer is how many bytes of records wait for the writer at most; 0: DefaultBuffer. As many may be on their way.
	Buffer int
	// Close is how long Close goes on writing; 0: DefaultClose.
	Close  time.Duration
	Logger *slog.Logger // is told when records are lost, at most once in ten seconds; nil: nobody is
}

const (
	// DefaultBuffer holds some 16000 records.
	DefaultBuffer = 4 << 20
	DefaultClose  = 5 * time.Second
)

// An Audit writes down calls, a JSON object on a line each. Who has a record written never waits for the
// writer: what finds the buffer full is dropped, and counted. Where some were dropped the file says how many, on
// a line {"time":…,"dropped":n}. When writing fails it is tried again, for as long as it takes.
type Audit struct {
	w    io.Writer
	o    AuditOptions
	said limiter

	mu      sync.Mutex
	buf     []byte // whole lines
	lines   int    // in buf
	lost    uint64 // dropped, and not yet told in the file
	counts  AuditCounts
	closing bool
	gone    bool // the writer was given up

	wake, stop, done chan struct{}
}

// An AuditCounts is what became of an Audit's records: all that there were are Written + Dropped + Waiting.
type AuditCounts struct {
	Written uint64 // whole
	Dropped uint64
	Waiting uint64 // in the buffer, or being written
	Errors  uint64 // writes that failed
}

// NewAudit returns an Audit that writes to w, which is the caller's to close, after Close.
func NewAudit(w io.Writer, o AuditOptions) *Audit {
	if o.Buffer == 0 {
		o.Buffer = DefaultBuffer
	}
	if o.Close == 0 {
		o.Close = DefaultClose
	}
	a := &Audit{w: w, o: o, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go a.write()
	return a
}

// Counts are the records' counts, all of one moment.
func (a *Audit) Counts() AuditCounts {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts
}

// lines are reused by those who make records.
var lineBuffers = sync.Pool{New: func() any { return new([]byte) }}

// record writes down a call. A nil Audit writes nothing.
func (a *Audit) record(p *Policy, l *look, by *rule, said string, err error) {
	if a == nil {
		return
	}
	b := lineBuffers.Get().(*[]byte)
	*b = l.append((*b)[:0], p, by, said, err)
	a.add(*b)
	if cap(*b) <= maxTexts*4 {
		lineBuffers.Put(b)
	}
}

// add adds a line to the buffer, or drops it.
func (a *Audit) add(line []byte) {
	a.mu.Lock()
	if a.closing || len(a.buf)+len(line) > a.o.Buffer {
		a.counts.Dropped++
		a.lost++
	} else {
		a.buf = append(a.buf, line...)
		a.lines++
		a.counts.Waiting++
	}
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default: // it is awake
	}
}

// take takes what waits, with the line that says what was lost behind it.
func (a *Audit) take(spare []byte) (batch []byte, records int, more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	batch, records = a.buf, a.lines
	a.buf, a.lines = spare[:0], 0
	if a.lost > 0 {
		batch = append(batch, `{"time":"`...)
		batch = time.Now().UTC().AppendFormat(batch, "2006-01-02T15:04:05.000000Z")
		batch = append(batch, `","dropped":`...)
		batch = strconv.AppendUint(batch, a.lost, 10)
		batch = append(batch, "}\n"...)
		a.lost = 0
	}
	return batch, records, !a.closing
}

// write is the writer.
func (a *Audit) write() {
	defer close(a.done)
	var batch []byte
	for {
		var records int
		var more bool
		if batch, records, more = a.take(batch); len(batch) > 0 {
			a.put(batch, records)
			continue
		}
		if !more {
			return
		}
		select {
		case <-a.wake:
		case <-a.stop:
		}
	}
}

const (
	// chunk is how much is written at once, so that counts follow.
	chunk               = 64 << 10
	retryMin, retryMost = 50 * time.Millisecond, 2 * time.Second
)

// put writes a batch, of which that many lines are records. It returns once all of it is written, or nothing more
// will be.
func (a *Audit) put(batch []byte, records int) {
	retry, told := retryMin, false
	for pos := 0; pos < len(batch); {
		end := min(pos+chunk, len(batch))
		if nl := bytes.LastIndexByte(batch[pos:end], '\n'); nl >= 0 {
			end = pos + nl + 1 // whole lines, if one has room
		}
		n, err := a.w.Write(batch[pos:end])
		n = max(0, min(n, end-pos))
		whole := bytes.Count(batch[pos:pos+n], []byte{'\n'})
		// After an error it goes on in the midst of the line: a file has its beginning, and so has a pipe for its next reader.
		pos += n
		if err == nil && n == 0 {
			err = io.ErrNoProgress
		}
		a.mu.Lock()
		if a.gone {
			a.mu.Unlock()
			return
		}
		done := uint64(min(whole, records)) // the last line may be no record
		records -= int(done)
		a.counts.Written += done
		a.counts.Waiting -= done
		if err != nil {
			a.counts.Errors++
		}
		dropped := a.counts.Dropped
		a.mu.Unlock()
		if err == nil {
			retry = retryMin
			if told {
				told = false
				a.say(slog.LevelInfo, "audit records are written again", "dropped", dropped)
			}
			continue
		}
		if a.said.may() {
			told = true
			a.say(slog.LevelWarn, "cannot write audit records: they wait, and are dropped when there is no room", "err", err, "dropped", dropped)
		}
		select {
		case <-a.stop:
			// A last try follows at once, and no other.
			if retry > retryMost {
				a.forget(records)
				return
			}
			retry = retryMost + 1
		case <-time.After(retry):
			retry = min(2*retry, retryMost)
		}
	}
}

// forget counts records that will not be written as dropped.
func (a *Audit) forget(records int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts.Dropped += uint64(records)
	a.counts.Waiting -= uint64(records)
}

func (a *Audit) say(level slog.Level, what string, args ...any) {
	if a.o.Logger != nil {
		a.o.Logger.Log(context.Background(), level, what, args...)
	}
}

// Close writes what waits, for at most as long as the options say, and counts the rest, and what comes later, as dropped.
// Its error says that there was some.
func (a *Audit) Close() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	again := a.closing
	a.closing = true
	a.mu.Unlock()
	if again {
		<-a.done
		return nil
	}
	close(a.stop)
	left := time.NewTimer(a.o.Close)
	defer left.Stop()
	select {
	case <-a.done:
	case <-left.C:
		// It may wait for a reader that reads no more. Some files can be told.
		if f, ok := a.w.(interface{ SetWriteDeadline(time.Time) error }); ok && f.SetWriteDeadline(time.Now()) == nil {
			select {
			case <-a.done:
			case <-time.After(time.Second):
			}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.counts.Waiting > 0 {
		a.gone = true
		a.counts.Dropped += a.counts.Waiting
		a.counts.Waiting = 0
		a.buf, a.lines = nil, 0
	}
	if a.counts.Dropped > 0 {
		return &DroppedError{a.counts.Dropped}
	}
	return nil
}

// A DroppedError says that audit records were lost.
type DroppedError struct{ Records uint64 }

func (e *DroppedError) Error() string {
	return strconv.FormatUint(e.Records, 10) + " audit records were dropped: the file could not be written as fast, or at all"
}
