package confine

import (
	"fmt"

	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// The calls that a container's seccomp profile may refuse, as messages name them.
const (
	callPrivs    = "prctl(PR_SET_NO_NEW_PRIVS)"
	callUnshare  = "unshare(2)"
	callRuleset  = "landlock_create_ruleset(2)"
	callRestrict = "landlock_restrict_self(2)"
	callFilter   = "seccomp(2)"
)

const refusedRemedy = "does a container's seccomp profile refuse it? allow it there"

// A step is one part of a confinement. Its error names the call that failed.
type step uint8

const (
	stepPrivs step = iota
	stepUnshare
	stepLandlock
	steps
)

var stepNames = [steps]string{"no_new_privs", "a file table of its own", "landlock"}

// lacks are the steps that this plan leaves out, and why: nil is one that it takes.
type lacks [steps]error

// list is for [Plan.Missing].
func (l *lacks) list(level Level) (missing []string) {
	for s, err := range l {
		if err == nil {
			continue
		}
		name := stepNames[s]
		if step(s) == stepUnshare && level == Shared {
			name = "a working directory and umask of its own"
		}
		missing = append(missing, fmt.Sprintf("%s (%v)", name, err))
	}
	return missing
}

func setPrivs() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("%s: %w", callPrivs, err)
	}
	return nil
}

func (l Level) unshare() error {
	what := unix.CLONE_FS | unix.CLONE_SYSVSEM
	if l == Private {
		what |= unix.CLONE_FILES
	}
	if err := unix.Unshare(what); err != nil {
		return fmt.Errorf("%s: %w", callUnshare, err)
	}
	return nil
}

// try takes the steps that may be refused on a thread that ends with that, and
// adds to l what is. Who goes on without must know before the thread is there
// whether that will have a file table of its own.
func (p *Plan) try(l *lacks) {
	done := make(chan struct{})
	osthread.Start(func() {
		defer close(done)
		l[stepPrivs] = setPrivs()
		l[stepUnshare] = p.cfg.Level.unshare()
		if l[stepLandlock] == nil {
			l[stepLandlock] = p.landlock.restrictSelf()
		}
	})
	<-done
}
