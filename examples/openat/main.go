// Openat runs a command for which there is a file that is nowhere:
//
//	go run ./examples/openat cat /hello
//
// Its supervisor answers openat(2) of that path with a descriptor of its own making. All other files are opened by
// the kernel. That decides nothing about who may open what: between this program's look at the path and the kernel's
// the command may change its memory (SECURITY.md).
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/launch"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/target"
	"golang.org/x/sys/unix"
)

// nowhere is the path that is answered.
const nowhere = "/hello"

func openat(r engine.Request) {
	d := r.Data()
	// String copies the path from the command's memory once; what is decided is decided by the copy.
	path, err := r.Target().String(d.Args[1], target.PathMax)
	if err != nil || filepath.Clean(path) != nowhere {
		_ = r.Continue()
		return
	}
	fd, err := hello(r.PID())
	if err != nil {
		log.Print(err)
		_ = r.Fail(unix.EIO)
		return
	}
	// The command gets a copy with the next free number. This one stays ours.
	_ = r.ReturnFD(fd, d.Args[2]&unix.O_CLOEXEC != 0)
	_ = unix.Close(fd)
}

// hello makes a file in memory, a new one for each open, since copies of a descriptor share its offset.
func hello(thread int) (int, error) {
	fd, err := unix.MemfdCreate("hello", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	if _, err := unix.Pwrite(fd, fmt.Appendf(nil, "hello, thread %d\n", thread), 0); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("write a file in memory: %w", err)
	}
	return fd, nil
}

func main() {
	launch.Init()
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("usage: openat COMMAND [ARGUMENT…]")
	}
	status, err := supervise(os.Args[1:])
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(status)
}

// supervise runs a command and returns its exit status.
func supervise(args []string) (int, error) {
	e, err := engine.New(engine.Config{Handler: engine.HandlerFunc(openat)})
	if err != nil {
		return 0, err
	}
	prog, err := notify.TrapProgram(unix.SYS_OPENAT)
	if err != nil {
		return 0, err
	}
	paths, err := launch.Find(args[0])
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	p, err := launch.Start(&launch.Command{Paths: paths, Args: args}, prog, 0, func(l *notify.Listener) error {
		_, err := e.Add(l)
		go func() { done <- e.Run(ctx) }()
		return err
	})
	if err != nil {
		stop()
		return 0, err
	}
	status, err := p.Wait()
	stop() // whatever the command has left behind goes on without a supervisor: its calls fail with ENOSYS
	if err == nil {
		err = <-done
	}
	return status.ExitStatus(), err
}
