package confine

import (
	"fmt"
	"strings"
)

// A Status says how a thread is confined.
type Status struct {
	TID          int
	Level        Level
	Signals      SignalMode
	OnViolation  Action
	Landlock     string // its ABI and what it denies, or why there is none
	StoreBypass  string // speculative store bypass: "off", "not affected", or why not
	NoNewPrivs   bool
	Missing      []string // as [Plan.Missing]
	FDs          []int    // level Private: the thread's open descriptors, in order
	Compiler     string   // what made the filter
	Instructions int
}

// String is one line for a log.
func (s *Status) String() string {
	fds := "shared with the process"
	if s.Level == Private {
		fds = strings.Trim(fmt.Sprint(s.FDs), "[]")
	}
	line := fmt.Sprintf("thread %d is confined: level %v, signals %v, violations %v, landlock %s, store bypass %s, descriptors %s, filter of %d instructions by %s",
		s.TID, s.Level, s.Signals, s.OnViolation, s.Landlock, s.StoreBypass, fds, s.Instructions, s.Compiler)
	if len(s.Missing) > 0 {
		line += ", without " + strings.Join(s.Missing, ", ")
	}
	return line
}
