package engine_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"golang.org/x/sys/unix"
)

// A stalledLog takes no line until it is released.
type stalledLog struct {
	syncBuffer
	released chan struct{}
}

func (l *stalledLog) Write(p []byte) (int, error) {
	<-l.released
	return l.syncBuffer.Write(p)
}

// TestALogThatStallsIsNotWaitedFor: not by workers whose handlers panic, nor by the stop. What it could not take is counted.
func TestALogThatStallsIsNotWaitedFor(t *testing.T) {
	log := &stalledLog{released: make(chan struct{})}
	e, stop := start(t, engine.Config{
		Handler: engine.HandlerFunc(func(engine.Request) { panic("odd") }), DefaultErrno: unix.EAGAIN, Workers: 2,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	c := startTarget(t, 4, 100)
	mustAdd(t, e, c)
	c.release()
	if r := c.results(); r.errno(unix.EAGAIN) != 400 {
		t.Errorf("target saw %+v", r)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	close(log.released)
	for end := time.Now().Add(testDeadline); !strings.Contains(log.String(), `msg="the log is too slow: lines were lost" lines=`); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nothing is said of lost lines: %s", log.String())
		}
	}
}
