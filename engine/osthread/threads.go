package osthread

import (
	"fmt"
	"os"
	"strconv"
	"strings"
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
