package engine

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	maxLogged = 256         // lines that wait for the log
	logFlush  = time.Second // for which a stop waits for them
)

// A logQueue stands before the user's log, so that no call and no stop waits for one that stalls, as a pipe does whose reader
// was stopped. What does not fit is lost, and a line says how much.
type logQueue struct {
	mu      sync.Mutex
	lines   []logLine
	lost    int
	writing chan struct{} // closed when the goroutine that writes has written all; nil: there is none
}

type logLine struct {
	to slog.Handler
	r  slog.Record
}

func (q *logQueue) put(l logLine) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines) >= maxLogged {
		q.lost++
		return
	}
	q.lines = append(q.lines, l)
	if q.writing == nil {
		q.writing = make(chan struct{})
		go q.write(q.writing)
	}
}

func (q *logQueue) write(done chan struct{}) {
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

// flush waits a while for the log.
func (q *logQueue) flush() {
	q.mu.Lock()
	writing := q.writing
	q.mu.Unlock()
	if writing == nil {
		return
	}
	select {
	case <-writing:
	case <-time.After(logFlush):
	}
}

// A queuedLog is the handler of a log behind a queue.
type queuedLog struct {
	slog.Handler
	q *logQueue
}

func (h queuedLog) Handle(_ context.Context, r slog.Record) error {
	h.q.put(logLine{h.Handler, r.Clone()})
	return nil
}

func (h queuedLog) WithAttrs(a []slog.Attr) slog.Handler {
	return queuedLog{h.Handler.WithAttrs(a), h.q}
}

func (h queuedLog) WithGroup(name string) slog.Handler {
	return queuedLog{h.Handler.WithGroup(name), h.q}
}
