package target

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/unknot/unknot/internal/osthread"
)

// A job is a function that runs on a thread of its own, which it may change and which ends with it.
type job struct {
	tid  chan int // of the thread, once
	done chan struct{}
	err  error

	panicked any
	stack    []byte
}

func startJob(gettid func() int, f func() error) *job {
	j := &job{tid: make(chan int, 1), done: make(chan struct{})}
	osthread.Start(func() {
		returned := false
		defer func() {
			if !returned {
				j.panicked = recover()
				j.stack = debug.Stack()
				if j.panicked == nil {
					j.err = errors.New("target: the function ended its goroutine (runtime.Goexit)")
				}
			}
			close(j.done)
		}()
		j.tid <- gettid()
		j.err = f()
		returned = true
	})
	return j
}

// wait waits for the job's end. If it panicked, so does wait, in the goroutine of who asked for it.
func (j *job) wait() error {
	<-j.done
	if j.panicked != nil {
		panic(fmt.Sprintf("%v, on a thread of its own:\n%s", j.panicked, j.stack))
	}
	return j.err
}
