//go:build !fakekernel

package notifytest_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/notify/notifytest"
	"golang.org/x/sys/unix"
)

// An engine with threads of its own, in real time, on listeners without a kernel, while targets are signalled and die.
func TestEngine(t *testing.T) {
	for _, p := range notifytest.Profiles()[1:] {
		for _, inline := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s inline=%t", p.Name, inline), func(t *testing.T) {
				k := notifytest.New(p)
				var asked atomic.Uint32
				k.Fault = func(notify.Op) unix.Errno {
					if asked.Add(1)%5 == 0 {
						return unix.EINTR
					}
					return 0
				}
				e, err := engine.New(engine.Config{Inline: inline, Queue: 4, Workers: 2, Handler: engine.HandlerFunc(func(r engine.Request) {
					_ = r.Return(int64(r.Data().Args[0]))
				})})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				over := make(chan error)
				go func() { over <- e.Run(ctx) }()
				var targets sync.WaitGroup
				var srcs []*engine.Source
				for l := range 3 {
					proc := k.Install(0).Process()
					var threads []*notifytest.Thread
					for range 4 {
						threads = append(threads, proc.Thread())
					}
					src, err := e.Add(proc.Filter().Listener())
					if err != nil {
						t.Fatal(err)
					}
					srcs = append(srcs, src)
					var calls sync.WaitGroup
					for i, th := range threads {
						calls.Go(func() {
							for n := range uint64(200) {
								r := th.Syscall(notify.Data{NR: unix.SYS_GETPPID, Arch: notify.NativeArch, Args: [6]uint64{n}})
								switch {
								case r.Died && l == 2, r.Interrupted, r.Errno == unix.EINTR && !inline: // dropped
								case r.Errno != 0 || r.Val != int64(n) || r.Died:
									t.Errorf("listener %d, thread %d: call %d was told %v", l, i, n, r)
								}
								threads[(i+1)%4].Signal(n%2 == 0)
								if l == 2 && i == 0 && n == 100 {
									proc.Kill()
								}
							}
						})
					}
					targets.Go(func() {
						calls.Wait()
						proc.Kill()
					})
				}
				targets.Wait()
				for _, src := range srcs {
					<-src.Done() // no target is left
				}
				cancel()
				if err := <-over; err != nil {
					t.Error(err)
				}
				if n := e.Counters(); n.Balance() != 0 || n.Failed != 0 || n.RecvFailed != 0 || n.HungUp != 3 {
					t.Errorf("counters: %+v", n)
				}
			})
		}
	}
}

func Example() {
	k := notifytest.New(notifytest.Linux6_18)
	filter := k.Install(0)
	process := filter.Process()
	thread := process.Thread()
	listener := filter.Listener()
	defer listener.Close()

	thread.Start(notify.Data{NR: unix.SYS_GETPPID, Arch: notify.NativeArch})
	var n notify.Notif
	fmt.Println(listener.Recv(&n), n.ID != 0)
	thread.Signal(true) // by a handler with SA_RESTART: the call comes again
	fmt.Println(listener.Send(&notify.Resp{ID: n.ID, Val: 1}))
	fmt.Println(listener.Recv(&n))
	fmt.Println(listener.Send(&notify.Resp{ID: n.ID, Val: 2}))
	got := thread.Wait()
	fmt.Println(got, got.Tries)
	// Output:
	// <nil> true
	// answer notification: no such file or directory
	// <nil>
	// <nil>
	// 2 2
}
