package daemon

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/unknot/unknot/internal/queuedlog"
)

// A line of one text may be logged logBurst times in logWindow; of the rest one line says how many there were.
const (
	logBurst  = 20
	logWindow = 10 * time.Second
	logTexts  = 256 // that are counted apart
)

// NewLog returns a logger to w, as "text" or "json", that cannot be flooded: of lines with the same text, whatever their
// attributes, at most 20 in 10 s are written, then one that says how many were not. Nobody waits for w: flush does, for a
// second, at the end.
func NewLog(w io.Writer, format string, level slog.Leveler) (log *slog.Logger, flush func(), err error) {
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler
	switch format {
	case "text":
		h = slog.NewTextHandler(w, o)
	case "json":
		h = slog.NewJSONHandler(w, o)
	default:
		return nil, nil, usagef("--log %q: want text or json", format)
	}
	q := &queuedlog.Queue{}
	return slog.New(limit(q.Before(h))), q.Flush, nil
}

// A limiter is a handler that limits the lines of each text.
type limiter struct {
	slog.Handler
	l *limits
}

type limits struct {
	mu    sync.Mutex
	texts map[string]*window
}

// A window is what was logged of a text.
type window struct {
	begun   time.Time
	n       int
	dropped int
}

func limit(h slog.Handler) *limiter { return &limiter{h, &limits{texts: map[string]*window{}}} }

// Handle logs r, or counts it.
func (h *limiter) Handle(ctx context.Context, r slog.Record) error {
	if !h.l.pass(h.Handler, r) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs is a limiter with the same limits.
func (h *limiter) WithAttrs(a []slog.Attr) slog.Handler { return &limiter{h.Handler.WithAttrs(a), h.l} }

// WithGroup is a limiter with the same limits.
func (h *limiter) WithGroup(name string) slog.Handler {
	return &limiter{h.Handler.WithGroup(name), h.l}
}

func (l *limits) pass(to slog.Handler, r slog.Record) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.texts[r.Message]
	if w == nil {
		text := r.Message
		if len(l.texts) >= logTexts {
			text = "" // all further ones together
			w = l.texts[text]
		}
		if w == nil {
			w = &window{begun: time.Now()}
			l.texts[text] = w
			time.AfterFunc(logWindow, func() { l.end(to, text, r.Level) })
		}
	}
	if w.n++; w.n > logBurst {
		w.dropped++
		return false
	}
	return true
}

// end closes a text's window and says what it swallowed.
func (l *limits) end(to slog.Handler, text string, level slog.Level) {
	l.mu.Lock()
	w := l.texts[text]
	delete(l.texts, text)
	l.mu.Unlock()
	if w == nil || w.dropped == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), level, "more lines of this kind were not logged", 0)
	r.AddAttrs(slog.String("text", text), slog.Int("lines", w.dropped))
	_ = to.Handle(context.Background(), r)
}
