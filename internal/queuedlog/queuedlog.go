// Package queuedlog stands between a program and its log, so that nobody waits for a log that stalls, as a pipe does whose
// reader was stopped. What does not fit is lost, and a line says how much.
package queuedlog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	maxLines = 256         // that wait for the log
	flushFor = time.Second // for which an end waits for them
)

// A Queue holds the lines that wait. Its zero value is empty. Every method may be called from several goroutines.
type Queue struct {
	mu      sync.Mutex
	lines   []line
	lost    int
	writing chan struct{} // closed when the goroutine that writes has written all; nil: there is none
}

type line struct {
	to slog.Handler
	r  slog.Record
}

// Before returns a handler whose lines go to h by way of the queue, in their order. What h says of them is not known.
func (q *Queue) Before(h slog.Handler) slog.Handler { return handler{h, q} }

func (q *Queue) put(l line) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines) >= maxLines {
		q.lost++
		return
	}
	q.lines = append(q.lines, l)
	if q.writing == nil {
		q.writing = make(chan struct{})
		go q.write(q.writing)
	}
}

func (q *Queue) write(done chan struct{}) {
	defer close(done)
	for {
		q.mu.Lock()
		lines, lost := q.lines, q.lost
		q.lines, q.lost = nil, 0
		if len(lines) == 0 {
			q.writing = nil
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		for _, l := range lines {
			_ = l.to.Handle(context.Background(), l.r)
		}
		if lost > 0 {
			r := slog.NewRecord(time.Now(), slog.LevelWarn, "the log is too slow: lines were lost", 0)
			r.AddAttrs(slog.Int("lines", lost))
			_ = lines[0].to.Handle(context.Background(), r)
		}
	}
}

// Flush waits until the log has all, or for a second.
func (q *Queue) Flush() {
	q.mu.Lock()
	writing := q.writing
	q.mu.Unlock()
	if writing == nil {
		return
	}
	select {
	case <-writing:
	case <-time.After(flushFor):
	}
}

type handler struct {
	slog.Handler
	q *Queue
}

func (h handler) Handle(_ context.Context, r slog.Record) error {
	h.q.put(line{h.Handler, r.Clone()})
	return nil
}

func (h handler) WithAttrs(a []slog.Attr) slog.Handler { return handler{h.Handler.WithAttrs(a), h.q} }

func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name), h.q} }
