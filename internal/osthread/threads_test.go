package osthread

import (
	"runtime"
	"slices"
	"sync/atomic"
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

func TestCPUTime(t *testing.T) {
	tid, end := make(chan int), make(chan bool)
	var over atomic.Bool
	Start(func() {
		tid <- unix.Gettid()
		<-end
		for !over.Load() {
		}
	})
	id := <-tid
	before, err := CPUTime(id)
	if err != nil {
		t.Fatal(err)
	}
	close(end)
	for {
		if now, err := CPUTime(id); err != nil || now < before {
			t.Fatalf("%v, after %v: %v", now, before, err)
		} else if now > before {
			break
		}
		runtime.Gosched()
	}
	over.Store(true)
	if _, err := CPUTime(1 << 22); err == nil {
		t.Error("a thread that is none has used CPUs")
	}
}
