package storm

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// errnos is the number of errnos that are told apart: those that Linux defines,
// on amd64 and arm64.
const errnos = int(unix.EHWPOISON) + 1

// Counts are the targets' calls by outcome.
type Counts struct {
	OK     uint64         // answered with a value
	Errnos [errnos]uint64 // answered with this errno; at 0, with one that Linux does not define
}

// Failed returns the calls that were answered with e. EINTR is a drop by the
// supervisor; ENOSYS says that nobody supervises any more, and ends its thread.
func (c Counts) Failed(e syscall.Errno) uint64 { return c.Errnos[index(e)] }

// Calls is the sum.
func (c Counts) Calls() uint64 {
	n := c.OK
	for _, k := range c.Errnos {
		n += k
	}
	return n
}

// Sub takes away what was counted before.
func (c *Counts) Sub(before Counts) {
	c.OK -= before.OK
	for e := range c.Errnos {
		c.Errnos[e] -= before.Errnos[e]
	}
}

// Add adds what others have counted.
func (c *Counts) Add(others Counts) {
	c.OK += others.OK
	for e := range c.Errnos {
		c.Errnos[e] += others.Errnos[e]
	}
}

// Except returns the counts without values and without the given errnos: what
// was not expected.
func (c Counts) Except(errnos ...syscall.Errno) Counts {
	c.OK = 0
	for _, e := range errnos {
		c.Errnos[index(e)] = 0
	}
	return c
}

// String lists what was counted, as in "answered 5, EINTR 2, EPERM 1".
func (c Counts) String() string {
	parts := []string{fmt.Sprint("answered ", c.OK)}
	if c.OK == 0 {
		parts = nil
	}
	for e, n := range c.Errnos {
		if n == 0 {
			continue
		}
		name := unix.ErrnoName(syscall.Errno(e))
		if name == "" {
			name = "undefined errno"
		}
		parts = append(parts, fmt.Sprint(name, " ", n))
	}
	if parts == nil {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// index is where e is counted.
//
//go:nosplit
func index(e syscall.Errno) int {
	if int(e) < errnos {
		return int(e)
	}
	return 0
}

// addTo adds what t has counted so far.
func (t *thread) addTo(c *Counts) {
	c.OK += t.ok.Load()
	for e := range t.errnos {
		c.Errnos[e] += t.errnos[e].Load()
	}
}
