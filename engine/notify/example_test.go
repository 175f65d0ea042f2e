package notify_test

import (
	"fmt"
	"log"
	"runtime"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// The least that a supervisor is: a filter, a call that it traps, and an answer. The thread that is trapped is one of
// this process; it keeps the filter, so it ends with its goroutine, which never unlocks it.
func ExampleInstall() {
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		log.Fatal(err)
	}
	listeners, returned := make(chan *notify.Listener), make(chan uintptr)
	go func() {
		runtime.LockOSThread()
		l, err := notify.Install(prog, 0)
		if err != nil {
			log.Fatal(err)
		}
		listeners <- l
		v, _, _ := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
		returned <- v
	}()
	l := <-listeners
	for {
		var n notify.Notif
		if err := l.Recv(&n); err != nil { // blocks until a call comes
			log.Fatal(err)
		}
		err := l.Send(&notify.Resp{ID: n.ID, Val: 42})
		if notify.OutcomeOf(err) == notify.Stale {
			continue // a signal has interrupted the call, which comes again, or its thread is dead
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("getppid:", n.Data.NR == unix.SYS_GETPPID)
		break
	}
	fmt.Println("returned", <-returned)
	if err := l.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// getppid: true
	// returned 42
}

// What an errno of an ioctl means depends on the ioctl.
func ExampleClassify() {
	fmt.Println(notify.Classify(notify.OpSend, unix.ENOENT)) // the caller is gone
	fmt.Println(notify.Classify(notify.OpRecv, unix.EINTR))
	fmt.Println(notify.Classify(notify.OpSend, unix.EINVAL)) // an answer that cannot be
	// Output:
	// stale
	// retry
	// bug
}

// Features are asked for by use, never by the kernel's version.
func ExampleRequire() {
	if err := notify.Require(notify.FeatureNotify, notify.FeatureContinue); err != nil {
		fmt.Println(err) // names what is missing, and the first kernel that has it
		return
	}
	fmt.Println("a supervisor can let calls go on here")
	// Output: a supervisor can let calls go on here
}
