package trace

import "github.com/unknot/unknot/engine/hist"

// A Stage is a part of a call's time. All but the last two follow each other
// without a gap: together they are the target's time between two sys_exits, StageCycle.
type Stage int

const (
	StageBefore    Stage = iota // the target's own time, before the trap
	stageWakeup                 // until the receiver has a CPU; 0 if it was running
	stageReceive                // until RECV returns, the time that the receiver spends elsewhere included
	StageWait                   // until dispatch, in supervisors that ask ID_VALID then
	StageService                // until SEND; without dispatch from RECV on
	stageAnswer                 // until the target runs again
	stageReturn                 // until the target's sys_exit, or, if the call continues, its sys_enter
	stageExecute                // the continued call itself, until its sys_exit
	stageRoundTrip              // all from the trap until the target runs again
	StageCycle                  // the target's time between two sys_exits
	NumStages
)

// parts are the stages that make up a StageCycle, in order.
const parts = stageRoundTrip

var stageNames = [NumStages]struct{ name, from, to string }{
	StageBefore:    {"before", "sys_exit", "trap"},
	stageWakeup:    {"wakeup", "trap", "receiver runs"},
	stageReceive:   {"receive", "receiver runs", "RECV returns"},
	StageWait:      {"wait", "RECV returns", "dispatch"},
	StageService:   {"service", "dispatch", "SEND"},
	stageAnswer:    {"answer", "SEND", "target runs"},
	stageReturn:    {"return", "target runs", "sys_exit"},
	stageExecute:   {"execute", "sys_enter", "sys_exit"},
	stageRoundTrip: {"roundtrip", "trap", "target runs"},
	StageCycle:     {"cycle", "sys_exit", "sys_exit"},
}

// String returns the stage's name in reports.
func (s Stage) String() string { return stageNames[s].name }

// Ends returns what the stage begins and ends with.
func (s Stage) Ends() (from, to string) { return stageNames[s].from, stageNames[s].to }

// Part reports whether the stage is one of those that make up a StageCycle.
func (s Stage) Part() bool { return s < parts }

// Sum returns the mean time in ns that the parts add up to, and the mean of what
// they should add up to, counted apart: that they differ means a bug, or a kernel
// that skipped a part. Both are NaN if nothing was followed.
func (r *Report) Sum() (parts, cycle float64) {
	c := r.Stages[StageCycle]
	if c == nil {
		c = new(hist.Snapshot)
	}
	var sum int64
	for s, h := range r.Stages {
		if h != nil && Stage(s).Part() {
			sum += h.Sum
		}
	}
	return float64(sum) / float64(c.Count), c.Mean()
}
