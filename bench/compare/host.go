package compare

import (
	"bytes"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A hostUse says what a run had to share the machine with, in CPUs: what other
// processes used, and what the hypervisor gave to other machines (steal). Nothing of
// it is the benchmark's own doing: its goroutines preempt each other, and a slowdown
// that consists of that must be found, not measured again until it is gone.
type hostUse struct {
	foreign float64
	took    time.Duration
	known   bool
}

// busyTime is the time that all CPUs have been busy or stolen since boot, by the first
// line of /proc/stat (fs/proc/stat.c), in units of 1/100 s.
func busyTime() (time.Duration, bool) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) < 9 || words[0] != "cpu" {
		return 0, false
	}
	sum := int64(0)
	for _, i := range []int{1, 2, 3, 6, 7, 8} { // user nice system irq softirq steal
		v, err := strconv.ParseInt(words[i], 10, 64)
		if err != nil {
			return 0, false
		}
		sum += v
	}
	return time.Duration(sum) * 10 * time.Millisecond, true
}

// ownTime is the CPU time of this process.
func ownTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// watchHost begins to watch the host; the function that it returns ends that, once the
// command has ended.
func watchHost() func(*exec.Cmd) hostUse {
	start, own := time.Now(), ownTime()
	busy, ok := busyTime()
	return func(c *exec.Cmd) hostUse {
		took := time.Since(start)
		now, ok2 := busyTime()
		if !ok || !ok2 || c.ProcessState == nil || took <= 0 {
			return hostUse{}
		}
		used := ownTime() - own + c.ProcessState.UserTime() + c.ProcessState.SystemTime()
		return hostUse{max(0, (now-busy-used).Seconds()/took.Seconds()), took, true}
	}
}

// A pairUse is what both sides of a pair had to share the machine with.
type pairUse [2]hostUse

// trouble is what disturbs a pair: that one side shared more than the other, or that
// both shared much.
func (p pairUse) trouble() float64 {
	if !p[0].known || !p[1].known {
		return 0
	}
	return max(math.Abs(p[0].foreign-p[1].foreign), (p[0].foreign+p[1].foreign)/4)
}

// A hostWatch knows what trouble is usual.
type hostWatch struct{ seen []float64 }

func (w *hostWatch) add(p pairUse) { w.seen = append(w.seen, p.trouble()) }

// disturbed says whether a pair had more trouble than is usual, by what /proc/stat can
// tell: its clock ticks every 10 ms on each CPU. A load that is always there is no
// disturbance, because no repetition would escape it.
func (w *hostWatch) disturbed(p pairUse) bool {
	t, usual := p.trouble(), slices.Sorted(slices.Values(w.seen))
	if len(usual) < 8 || !(t > usual[len(usual)*4/5]) {
		return false
	}
	return t > .2 && t*min(p[0].took, p[1].took).Seconds() > .03
}
