package main

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/unknot/unknot/cmd/unknot/internal/rules"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/filter"
	"golang.org/x/sys/unix"
)

// TestCallsByName: each call of the lists is one, here or on the other machine.
func TestCallsByName(t *testing.T) {
	// What arm64 lacks.
	old := []string{"accept", "creat", "dup2", "epoll_wait", "fork", "open", "pause", "pipe", "poll", "select", "vfork"}
	for _, name := range slices.Concat(rules.NeverFailed, interruptible) {
		if _, err := filter.Number(name); err != nil && !slices.Contains(old, name) {
			t.Error(err)
		}
	}
	for _, name := range rules.NeverFailed {
		if slices.Contains(interruptible, name) {
			t.Errorf("%s: programs cannot both expect its EINTR and not", name)
		}
	}
	if unsafe := unsafeCalls(defaultTrap); len(unsafe) > 0 {
		t.Errorf("the default set has %v", unsafe)
	}
}

func TestRunWarnsOfUnsafeCalls(t *testing.T) {
	for trap, want := range map[string]string{"close,openat,connect": "close,connect:", "openat,read": ""} {
		o := result(t, unknot(t, "run", "-t", trap, "-o", "/dev/null", "--", "true"))
		if n := strings.Count(o.stderr, "programs do not expect"); o.code != 0 || (want == "") != (n == 0) || n > 1 || !strings.Contains(o.stderr, want) {
			t.Errorf("-t %s: status %d, want a warning of %q\n%s", trap, o.code, want, o.stderr)
		}
	}
	if o := result(t, unknot(t, "run", "--quiet", "-t", "close", "--", "true")); o.stderr != "" {
		t.Errorf("--quiet: %s", o.stderr)
	}
}

// TestDropErrnos: what was said of all calls, or of one, and what counts of it.
func TestDropErrnos(t *testing.T) {
	nr := func(name string) int32 {
		n, err := filter.Number(name)
		if err != nil {
			t.Fatal(err)
		}
		return int32(n)
	}
	for _, c := range []struct {
		said   []string
		call   string
		want   syscall.Errno // 0: as of all calls
		inline bool
		all    syscall.Errno
	}{
		{[]string{"continue"}, "read", 0, true, engine.DropContinue},
		{[]string{"EAGAIN"}, "read", 0, false, unix.EAGAIN},
		{[]string{"EAGAIN"}, "close", engine.DropContinue, false, unix.EAGAIN},
		{[]string{"EAGAIN", "connect=ETIMEDOUT"}, "connect", unix.ETIMEDOUT, false, unix.EAGAIN},
		{[]string{"read=EIO"}, "read", unix.EIO, false, engine.DropContinue},
		{[]string{"EPERM", "setuid=EPERM"}, "setuid", engine.DropContinue, false, unix.EPERM},
	} {
		s := defaultRunSettings()
		s.DropErrno, s.where = strings.Join(c.said, ","), func(n string) string { return n }
		cfg, err := s.engineConfig()
		if err != nil {
			t.Fatal(err)
		}
		if cfg.DropErrno != c.all || cfg.DropErrnos[nr(c.call)] != c.want || cfg.Inline != c.inline {
			t.Errorf("%v: all %v, %s %v, inline %v; want %v, %v, %v", c.said, cfg.DropErrno, c.call, cfg.DropErrnos[nr(c.call)], cfg.Inline, c.all, c.want, c.inline)
		}
	}
	for _, said := range []string{"EWHAT", "read=EWHAT", "raed=EINTR", "=EINTR"} {
		s := defaultRunSettings()
		s.DropErrno, s.where = said, func(n string) string { return n }
		if _, err := s.engineConfig(); err == nil {
			t.Errorf("%q is accepted", said)
		}
	}
}
