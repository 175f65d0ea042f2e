package engine_test

import (
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
)

// A warnings counts the lines that say that a mask defeats the wake-up mode.
type warnings struct {
	n     atomic.Int32
	first chan struct{} // closed by the first
}

func (w *warnings) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "defeats SYNC_WAKE_UP") && w.n.Add(1) == 1 {
		close(w.first)
	}
	return len(p), nil
}

func TestAMaskThatDefeatsSyncWakeUpIsLogged(t *testing.T) {
	if err := notify.FeatureSyncWakeUp.Probe(); err != nil {
		t.Skip(err)
	}
	cpus := severalCPUs(t)
	last := cpus[len(cpus)-1]
	for _, c := range []struct {
		name string
		cpu  int
		warn bool
	}{{"apart", cpus[0], true}, {"together", last, false}} {
		t.Run(c.name, func(t *testing.T) {
			log := &warnings{first: make(chan struct{})}
			calls := 0 // one receive thread
			e, stop := start(t, engine.Config{
				Handler: engine.HandlerFunc(func(r engine.Request) {
					if calls++; calls == 150 && c.warn { // the target shall be there to be looked at
						select {
						case <-log.first:
						case <-time.After(testDeadline / 2):
						}
					}
					_ = r.Return(7)
				}),
				Inline: true, CPU: engine.OnCPU(last), WakeUp: engine.Sync,
				Logger: slog.New(slog.NewTextHandler(log, nil)),
			})
			// The target inherits this thread's mask.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if err := osthread.Pin(c.cpu); err != nil {
				t.Fatal(err)
			}
			target := startTarget(t, 1, 300)
			if err := osthread.Unpin(cpus); err != nil {
				t.Fatal(err)
			}
			mustAdd(t, e, target)
			target.release()
			target.results()
			stop()
			if want := map[bool]int32{true: 1}[c.warn]; log.n.Load() != want {
				t.Errorf("%d warnings, want %d", log.n.Load(), want)
			}
		})
	}
}
