package osthread

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Threads returns the ids of this process's threads, as gettid(2) has them. They are
// read in /proc, which may be that of a PID namespace around ours, where the threads
// have other numbers. Threads may start and end meanwhile.
func Threads() (tids []int, err error) {
	const dir = "/proc/self/task"
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list own threads: %w", err)
	}
	for _, t := range tasks {
		status, err := os.ReadFile(dir + "/" + t.Name() + "/status")
		if err != nil {
			continue // it has ended
		}
		for l := range strings.Lines(string(status)) {
			numbers, ok := strings.CutPrefix(l, "NSpid:")
			if !ok {
				continue
			}
			// The last is that in its own namespace, which is ours.
			numbers = strings.TrimSpace(numbers)
			if tid, err := strconv.Atoi(numbers[strings.LastIndexByte(numbers, '\t')+1:]); err == nil {
				tids = append(tids, tid)
			}
		}
	}
	return tids, nil
}

// CPUTime is what a thread of this process has used of CPUs, in user and kernel mode (clock_gettime on the
// thread's clock). The thread may be a confined one: it has no part in that.
func CPUTime(tid int) (time.Duration, error) {
	var ts unix.Timespec
	// The kernel's CPUCLOCK_PERTHREAD_MASK and CPUCLOCK_SCHED, as pthread_getcpuclockid has them.
	if err := unix.ClockGettime(int32(^tid<<3|4|2), &ts); err != nil {
		return 0, fmt.Errorf("CPU time of thread %d: %w", tid, err)
	}
	return time.Duration(ts.Nano()), nil
}
