package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
)

// A Supervisor is one run of one engine.
type Supervisor interface {
	// Serve takes ownership of l and supervises it until Stop. It returns at once.
	Serve(l *notify.Listener) error
	// Waits are the times from receive to dispatch so far, in ns, by the
	// engine's own clock; nil if it has none.
	Waits() *hist.Snapshot
	// Stop answers what is held, closes the listener and reports. Stop the
	// targets first.
	Stop(ctx context.Context) (Stats, error)
}

// Stats are an engine's own counts of one run.
type Stats struct {
	Served  uint64 // answered by the handler
	Dropped uint64 // answered EINTR because the queue was full
	Stale   uint64 // gone before dispatch or answer
}

// Spec is what an engine is asked to be.
type Spec struct {
	Engine    string
	Path      string // PathInline, PathQueue
	Targets   int
	Work      Work
	Workers   int
	Queue     int
	DropBatch int
	Confine   Confiner // of the engine unknot; nil: its receive thread is not confined
}

// A Confiner has the receive thread of an engine confine itself. Package confine
// is joined with the engine by whoever runs both.
type Confiner interface {
	// Confine adds to cfg what the thread shall do. Tell the function that it
	// returns the engine that was made of cfg, before the engine runs.
	Confine(cfg *engine.Config) (func(*engine.Engine), error)
	// String names the level, for the benchmark's name.
	String() string
}

// The paths of a notification.
const (
	PathInline = "inline"
	PathQueue  = "queue"
)

type engineKind struct {
	name  string
	paths []string
	make  func(Spec) (Supervisor, error)
}

// engines in the order in which they are reported.
var engines = []engineKind{
	{"unknot", []string{PathInline, PathQueue}, newUnknot},
	{"chan", []string{PathQueue}, newChan},
	{"seed", []string{PathQueue}, newSeed},
	{"bare", []string{PathInline}, newBare},
}

// EngineNames lists the engines.
func EngineNames() (names []string) {
	for _, e := range engines {
		names = append(names, e.name)
	}
	return names
}

func findEngine(name string) (engineKind, error) {
	for _, e := range engines {
		if e.name == name {
			return e, nil
		}
	}
	return engineKind{}, fmt.Errorf("no engine %q: the engines are %s", name, strings.Join(EngineNames(), ", "))
}

// New makes the supervisor that s describes.
func New(s Spec) (Supervisor, error) {
	e, err := findEngine(s.Engine)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(e.paths, s.Path) {
		return nil, fmt.Errorf("engine %s has no path %q: it has %s", s.Engine, s.Path, strings.Join(e.paths, ", "))
	}
	return e.make(s)
}

// answerVal is what handlers return to the targets.
const answerVal = 42

var epoch = time.Now()

func now() int64 { return int64(time.Since(epoch)) }

// Paths lists the paths of an engine.
func Paths(name string) ([]string, error) {
	e, err := findEngine(name)
	return e.paths, err
}
