package engine_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/osthread"
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
