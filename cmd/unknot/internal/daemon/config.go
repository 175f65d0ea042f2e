package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/unknot/unknot/cmd/unknot/internal/systemd"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/internal/unixsocket"
)

// A Config is what `unknot serve` was told.
type Config struct {
	Socket   string // where runtimes connect to
	LXC      string // where LXC's monitors do; "": nowhere
	Policy   string // the policy's file
	Audit    string // the file of audit records; "": none, "-": standard output
	Status   string // the address of the status page; "": none
	TakeOver bool   // from a daemon that runs, if there is one
	Keep     Keep
	// WaitTarget is how long calls may wait in a queue, 0 for ever; nil leaves it to the policy.
	WaitTarget *time.Duration
	Drain      time.Duration // how long a stop, or a hand-over, waits for handlers

	Version     string
	Confinement string                     // in words
	Confine     func(*engine.Config) error // nil: not at all
	Log         *slog.Logger
	// Again is this program, to be run again as the daemon of a keeper: with Stdout, Stderr and ExtraFiles as they shall be.
	Again func() *exec.Cmd

	handler   engine.Handler // instead of the policy, in tests
	records   int            // 0: rules.DefaultBuffer
	deadAfter time.Duration  // 0: deadAfter
	sameWish  time.Duration  // 0: sameWish
}

// Keep says who keeps copies of listeners.
type Keep string

// Who keeps copies.
const (
	KeepAuto    Keep = "auto" // systemd, if it stores descriptors for this service, else a keeper
	KeepSystemd Keep = "systemd"
	KeepKeeper  Keep = "keeper"
	KeepNone    Keep = "none"
)

// Keeps are all kinds, for messages.
var Keeps = []Keep{KeepAuto, KeepSystemd, KeepKeeper, KeepNone}

// A UsageError is a setting that cannot be.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

func usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// linkSuffix is what the path of the socket at which a daemon hands over has beyond the agent's. policySuffix is that of
// the last policy that was good.
const (
	linkSuffix   = ".link"
	policySuffix = ".policy"
)

// check looks at what can be wrong before anything is done.
func (c *Config) check() error {
	if c.Socket == "" {
		return usagef("--socket: name the path that linux.seccomp.listenerPath of containers has, such as /run/unknot/agent.sock")
	}
	if err := checkSocket("--socket", c.Socket); err != nil {
		return err
	}
	if c.LXC != "" {
		if err := checkSocket("--lxc-socket", c.LXC); err != nil {
			return err
		}
	}
	switch {
	case c.LXC == c.Socket:
		return usagef("--lxc-socket %q: is --socket, and LXC speaks another protocol: choose another path", c.LXC)
	case c.Drain <= 0:
		return usagef("--drain %v: want a duration above 0, such as 5s", c.Drain)
	}
	known := false
	for _, k := range Keeps {
		known = known || c.Keep == k
	}
	if !known {
		return usagef("--keep %q: want auto, systemd, keeper or none", c.Keep)
	}
	return nil
}

// checkSocket looks at where a socket shall be.
func checkSocket(flag, path string) error {
	if err := unixsocket.Check(path); err != nil {
		return usagef("%s: %w", flag, err)
	}
	if !filepath.IsAbs(path) {
		return usagef("%s %q: want an absolute path, as runtimes do", flag, path)
	}
	if err := private(filepath.Dir(path)); err != nil {
		return usagef("%s: %w", flag, err)
	}
	return nil
}

// private refuses a directory in which others could put a socket of theirs in the place of ours.
func private(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("directory %s does not exist: make it (install -d -m 0755 %s)", dir, dir)
	}
	if err != nil {
		return fmt.Errorf("directory %s: %w", dir, err)
	}
	for at := real; ; at = filepath.Dir(at) {
		fi, err := os.Stat(at)
		if err != nil {
			return fmt.Errorf("directory %s: %w", at, err)
		}
		if !fi.IsDir() {
			return fmt.Errorf("%s is no directory", at)
		}
		if err := othersMay(fi, at == real); err != nil {
			return fmt.Errorf("directory %s: %w", at, err)
		}
		if at == "/" {
			return nil
		}
	}
}

// othersMay is an error if somebody else than root and this user may replace what is in the directory, or, if last, add to it.
func othersMay(fi fs.FileInfo, last bool) error {
	uid, gid := owner(fi)
	mode := fi.Mode()
	sticky := mode&fs.ModeSticky != 0 && !last // others add there, but do not replace what is ours
	switch {
	case uid != 0 && uid != os.Geteuid():
		return fmt.Errorf("user %d owns it, who could put another socket there: use a directory of root's or of user %d's", uid, os.Geteuid())
	case mode.Perm()&0o002 != 0 && !sticky:
		return errors.New("others may write there, and put another socket in its place: chmod o-w, or use a directory such as /run/unknot")
	case mode.Perm()&0o020 != 0 && !sticky && gid != 0:
		return fmt.Errorf("group %d may write there, and put another socket in its place: chmod g-w, or use a directory such as /run/unknot", gid)
	}
	return nil
}

// Env is how a keeper tells the daemon that it starts which descriptors come with it.
const Env = "UNKNOT_SERVE_KEEPER"

// activatedSuffix says there that the socket is the service manager's.
const activatedSuffix = ",activated"

// Run is `unknot serve`: it returns when all is over. Signals are its own: SIGHUP, SIGINT, SIGTERM.
func Run(c Config) error {
	if c.Drain == 0 {
		c.Drain = 5 * time.Second
	}
	if err := c.check(); err != nil {
		return err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	d := &daemon{Config: c}
	inherited := os.Getenv(Env)
	_ = os.Unsetenv(Env)
	if inherited != "" {
		if err := d.fromKeeper(inherited); err != nil {
			return err
		}
		d.manager = connect(c.Log, true)
		return d.run()
	}
	// A keeper has nothing to say to the manager: its daemon does.
	if c.Keep == KeepKeeper {
		return keep(&c, nil)
	}
	manager := connect(c.Log, false)
	if c.Keep == KeepNone {
		d.manager = manager
		c.Log.Warn("no copies of listeners are kept (--keep=none): a crash, or a stop, makes containers' trapped calls fail with ENOSYS")
		return d.run()
	}
	if manager == nil && c.Keep == KeepSystemd {
		return usagef("--keep=systemd: %w: start it as a service, or use --keep=keeper", systemd.ErrNone)
	}
	if manager != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := manager.Probe(ctx)
		cancel()
		switch {
		case err == nil:
			d.manager, d.store = manager, &managerStore{m: manager, log: c.Log}
			return d.run()
		case c.Keep == KeepSystemd:
			return fmt.Errorf("--keep=systemd: %w", err)
		}
		c.Log.Warn("the service manager keeps no descriptors; a keeper does, which takes NotifyAccess=all in the unit", "err", err)
		return keep(&c, manager.Environ())
	}
	return keep(&c, nil)
}

// connect returns the manager, or nil.
func connect(log *slog.Logger, parent bool) *systemd.Manager {
	m, err := systemd.Connect(parent)
	if err == nil {
		return m
	}
	if !errors.Is(err, systemd.ErrNone) {
		log.Warn("the service manager is told nothing", "err", err)
	}
	return nil
}
