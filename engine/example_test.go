package engine_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"runtime"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// supervised runs an engine with the handler and has a thread of this process
// make one trapped call under it, which is enough to show what the call
// returns. Real targets are other processes.
func supervised(h engine.HandlerFunc) (val uintptr, errno unix.Errno) {
	e, err := engine.New(engine.Config{Handler: h})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()

	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		log.Fatal(err)
	}
	listener, go_, called := make(chan *notify.Listener), make(chan bool), make(chan bool)
	osthread.Start(func() { // the thread, and with it the filter, ends with this function
		l, err := notify.Install(prog, 0)
		if err != nil {
			log.Fatal(err)
		}
		listener <- l
		<-go_
		val, _, errno = unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
		called <- true
	})
	if _, err := e.Add(<-listener); err != nil {
		log.Fatal(err)
	}
	go_ <- true
	<-called
	stop()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	return val, errno
}

// An engine supervises listeners until its context ends. Here a thread of this process is what it supervises; real
// targets are other processes, which package launch starts and package agent is handed.
func Example() {
	e, err := engine.New(engine.Config{
		Handler: engine.HandlerFunc(func(r engine.Request) {
			if r.Data().NR == unix.SYS_GETPPID {
				_ = r.Return(42)
				return
			}
			_ = r.Continue()
		}),
		Queue: 64, Workers: 2,
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()

	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		log.Fatal(err)
	}
	listener, added, parent := make(chan *notify.Listener), make(chan bool), make(chan uintptr)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its filter
		l, err := notify.Install(prog, 0)
		if err != nil {
			log.Fatal(err)
		}
		listener <- l
		<-added
		v, _, _ := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
		parent <- v
	}()
	if _, err := e.Add(<-listener); err != nil { // the engine owns it now
		log.Fatal(err)
	}
	added <- true
	fmt.Println("getppid returned", <-parent)
	stop() // everything received is answered
	fmt.Println(<-done, e.Counters().Answered)
	// Output:
	// getppid returned 42
	// <nil> 1
}

func ExampleRequest_Return() {
	val, errno := supervised(func(r engine.Request) { _ = r.Return(42) })
	fmt.Println(val, int(errno))
	// Output: 42 0
}

func ExampleRequest_Fail() {
	_, errno := supervised(func(r engine.Request) { _ = r.Fail(unix.EPERM) })
	fmt.Println(errno)
	// Output: operation not permitted
}

func ExampleRequest_Continue() {
	val, _ := supervised(func(r engine.Request) { _ = r.Continue() })
	fmt.Println(int(val) == os.Getppid())
	// Output: true
}

func ExampleRequest_ReturnFD() {
	val, _ := supervised(func(r engine.Request) {
		f, err := os.Open(os.DevNull)
		if err != nil {
			_ = r.Fail(unix.EIO)
			return
		}
		defer f.Close()
		if err := r.ReturnFD(int(f.Fd()), true); err != nil {
			_ = r.Fail(unix.EMFILE)
		}
	})
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", val))
	fmt.Println(name, err)
	_ = unix.Close(int(val))
	// Output: /dev/null <nil>
}

func ExampleRequest_SendFD() {
	val, _ := supervised(func(r engine.Request) {
		f, err := os.Open(os.DevNull)
		if err != nil {
			_ = r.Fail(unix.EIO)
			return
		}
		defer f.Close()
		if err := r.SendFD(int(f.Fd()), true); err != nil { // nothing was answered
			_ = r.Fail(unix.EMFILE)
		}
	})
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", val))
	fmt.Println(name, err)
	_ = unix.Close(int(val))
	// Output: /dev/null <nil>
}

func ExampleRequest_Detach() {
	approved := make(chan bool)
	val, errno := supervised(func(r engine.Request) {
		p := r.Detach()
		go func() { // the worker goes on meanwhile
			select {
			case yes := <-approved:
				if yes {
					_ = p.Return(42)
				} else {
					_ = p.Fail(unix.EPERM)
				}
			case <-p.Done(): // the deadline, or a stop: the engine has answered
			}
		}()
		go func() { approved <- true }() // somebody decides, some time
	})
	fmt.Println(val, int(errno))
	// Output: 42 0
}

func ExampleGo() {
	slow := engine.HandlerFunc(func(r engine.Request) {
		time.Sleep(time.Millisecond) // a network, a disk
		_ = r.Return(42)
	})
	apart := engine.Go(slow, 64)
	val, _ := supervised(func(r engine.Request) {
		if r.Data().NR == unix.SYS_GETPPID {
			apart.Handle(r)
			return
		}
		_ = r.Continue()
	})
	fmt.Println(val)
	// Output: 42
}

func ExampleEngine_AddWith() {
	type container struct{ name string }
	called := make(chan string, 1)
	e, err := engine.New(engine.Config{Handler: engine.HandlerFunc(func(r engine.Request) {
		c := r.Source().Tag().(*container) // from the first call on
		select {
		case called <- c.name:
		default: // a signal has interrupted the call, and it comes again
		}
		_ = r.Continue()
	})})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	<-e.Ready()

	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		log.Fatal(err)
	}
	listener, go_ := make(chan *notify.Listener), make(chan bool)
	osthread.Start(func() {
		l, err := notify.Install(prog, 0)
		if err != nil {
			log.Fatal(err)
		}
		listener <- l
		<-go_
		unix.Getppid()
		go_ <- true
	})
	s, err := e.AddWith(<-listener, engine.SourceOptions{Tag: &container{"web"}, MaxInHandlers: 4, Queue: 32})
	if err != nil {
		log.Fatal(err)
	}
	go_ <- true
	<-go_
	<-s.Done() // its last target is gone
	fmt.Println("a call of", <-called)
	fmt.Println("answered:", s.Counters().Answered)
	stop()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// a call of web
	// answered: 1
}
