package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// launchEnv marks the launcher: this program run again to become the
// supervised command. It installs the filter on one thread, which then calls
// execve; a second thread, without the filter, passes the listener on.
//
// The filter may trap whatever those two need: sendmsg, futex, mmap, execve.
// So the first thread's last system call before the supervisor has the
// listener is seccomp(2), after which it only spins on a word in memory; the
// second depends on no wake-up by the first and polls that word. Once
// supervised, the first may trap as it likes.
const launchEnv = "UNKNOT_LAUNCH"

// launchFD is the launcher's end of the socket to the supervisor.
const launchFD = 3

// A launchPlan is what the supervisor sends to the launcher.
type launchPlan struct {
	Prog  []unix.SockFilter
	Flags notify.InstallFlags
	Path  string
	Argv  []string
	Env   []string
}

// launchMain is the launcher's main function; it returns at once in every other
// process.
func launchMain() {
	if os.Getenv(launchEnv) == "" {
		return
	}
	debug.SetGCPercent(-1) // a stop of the world would wait for a trapped thread
	runtime.GOMAXPROCS(4)  // two threads that hold on to their processor, and the runtime
	unix.CloseOnExec(launchFD)
	plan := make(chan *launchPlan)
	var l launcher
	go l.pass(plan)
	runtime.LockOSThread()
	l.become(<-plan)
}

// launcher is what its two threads share. All are polled, none is waited for.
type launcher struct {
	listener atomic.Int64 // descriptor plus 1
	failure  atomic.Pointer[error]
	released atomic.Bool
	errno    atomic.Int64 // of a failed execve
}

// become is the first thread.
func (l *launcher) become(p *launchPlan) {
	fd, err := notify.InstallFD(p.Prog, p.Flags)
	if err != nil {
		l.failure.Store(&err)
		select {}
	}
	l.listener.Store(int64(fd) + 1)
	for !l.released.Load() {
	}
	// syscall.Exec also gives back the limit of open files that Go raised.
	err = syscall.Exec(p.Path, p.Argv, p.Env)
	errno, _ := err.(syscall.Errno)
	l.errno.Store(int64(errno))
	select {}
}

// nap waits without the Go scheduler, so that nothing needs to wake us.
func nap() {
	ts := unix.NsecToTimespec(50_000)
	_ = unix.Nanosleep(&ts, nil)
}

// pass is the second thread: it brings the plan, takes the listener to the
// supervisor, and reports what fails.
func (l *launcher) pass(plan chan<- *launchPlan) {
	runtime.LockOSThread()
	f, err := net.FileConn(os.NewFile(launchFD, "supervisor"))
	if err != nil {
		launchFailed(err)
	}
	unix.CloseOnExec(launchFD)
	conn := f.(*net.UnixConn)
	var p launchPlan
	if err := json.NewDecoder(conn).Decode(&p); err != nil {
		launchFailed(err)
	}
	plan <- &p
	for l.listener.Load() == 0 {
		if err := l.failure.Load(); err != nil {
			launchFailed(*err)
		}
		nap()
	}
	fd := int(l.listener.Load() - 1)
	ln, err := notify.NewListener(fd)
	if err != nil {
		launchFailed(err)
	}
	if err := notify.SendListener(conn, ln); err != nil {
		launchFailed(err)
	}
	if err := ln.Close(); err != nil {
		launchFailed(err)
	}
	var b [1]byte
	if _, err := conn.Read(b[:]); err != nil {
		os.Exit(exitFailure) // the supervisor is gone, and has said why
	}
	l.released.Store(true)
	for l.errno.Load() == 0 { // execve ends this thread
		nap()
	}
	_, _ = conn.Write([]byte{byte(l.errno.Load())})
	os.Exit(exitFailure)
}

func launchFailed(err error) {
	fmt.Fprintf(os.Stderr, "unknot: launch: %v\n", err)
	os.Exit(exitFailure)
}
