package osthread

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// bench/trace has the test in which /proc is another PID namespace's.
func TestThreads(t *testing.T) {
	tid, end := make(chan int), make(chan bool)
	Start(func() { tid <- unix.Gettid(); <-end })
	defer close(end)
	ours := []int{unix.Getpid(), <-tid}
	got, err := Threads()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range ours {
		if !slices.Contains(got, want) {
			t.Errorf("threads %v, without %d", got, want)
		}
	}
	for _, tid := range got {
		if err := unix.Tgkill(unix.Getpid(), tid, 0); err != nil && err != unix.ESRCH {
			t.Errorf("thread %d is not ours: %v", tid, err)
		}
	}
}
