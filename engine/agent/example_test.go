package agent_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// An agent whose containers may not ask for their parent. What runc does is done by a thread here.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	e, err := engine.New(engine.Config{Handler: engine.Deny(unix.ENOMEDIUM)})
	if err != nil {
		log.Fatal(err)
	}
	a, err := agent.Listen(agent.Config{
		Path: filepath.Join(dir, "agent.sock"),
		Serve: func(s agent.State, l *notify.Listener) error {
			fmt.Println("container", s.Container.ID, "with metadata", s.Metadata)
			_, err := e.Add(l)
			return err
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	go func() { done <- e.Run(ctx) }()
	fmt.Println("the call came to:", container(a.Addr()))
	stop()
	fmt.Println(<-done, <-done)
	// Output:
	// container box with metadata bar
	// the call came to: no medium found
	// <nil> <nil>
}

// container is a runtime that starts a container, which makes one trapped call.
func container(path string) error {
	result := make(chan error)
	osthread.Start(func() { // the thread, and with it the filter, ends with this function
		result <- func() error {
			prog, err := notify.TrapProgram(unix.SYS_GETPPID)
			if err != nil {
				return err
			}
			l, err := notify.Install(prog, 0)
			if err != nil {
				return err
			}
			c, err := net.Dial("unix", path)
			if err != nil {
				return err
			}
			defer c.Close()
			state := `{"ociVersion":"1.0.2","fds":["seccompFd"],"pid":1,"metadata":"bar","state":{"id":"box","status":"creating","bundle":"/"}}`
			if _, _, err := c.(*net.UnixConn).WriteMsgUnix([]byte(state), unix.UnixRights(l.FD()), nil); err != nil {
				return err
			}
			_ = l.Close()
			if _, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0); e != 0 {
				return e
			}
			return nil
		}()
	})
	return <-result
}
