package target_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/target"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// supervised has a thread of this process make one call under an engine with that handler, which is enough to show what
// the handler sees and the call returns. Real targets are other processes.
func supervised(h engine.HandlerFunc, nr, a1, a2, a3, a4 uintptr) (val uintptr, errno unix.Errno) {
	e, err := engine.New(engine.Config{Handler: h})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	prog, err := notify.TrapProgram(int(nr))
	if err != nil {
		log.Fatal(err)
	}
	listener, added, called := make(chan *notify.Listener), make(chan bool), make(chan bool)
	osthread.Start(func() { // the thread, and with it the filter, ends with this function
		l, err := notify.Install(prog, 0)
		if err != nil {
			log.Fatal(err)
		}
		listener <- l
		<-added
		val, _, errno = unix.Syscall6(nr, a1, a2, a3, a4, 0, 0)
		called <- true
	})
	if _, err := e.Add(<-listener); err != nil {
		log.Fatal(err)
	}
	added <- true
	<-called
	stop()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	return val, errno
}

// What calls point to stays where it is: a goroutine's stack moves.
var (
	dataPath = []byte("/srv/data\x00")
	filePath []byte
	names    unix.Utsname
)

// A supervisor of mkdir sees the path, and makes the directory under another name itself, with the path that it copied.
func ExampleTarget_String() {
	_, errno := supervised(func(r engine.Request) {
		name, err := r.Target().String(r.Data().Args[1], target.PathMax)
		if err != nil {
			_ = r.Fail(target.Errno(err, unix.EPERM))
			return
		}
		fmt.Println("it wants", name)
		_ = r.Fail(unix.EROFS)
	}, unix.SYS_MKDIRAT, 0, uintptr(unsafe.Pointer(&dataPath[0])), 0o777, 0)
	fmt.Println(errno)
	// Output:
	// it wants /srv/data
	// read-only file system
}

// A pointer to nowhere is the target's own fault, and it is told so.
func ExampleErrno() {
	_, errno := supervised(func(r engine.Request) {
		_, err := r.Target().String(r.Data().Args[1], target.PathMax)
		_ = r.Fail(target.Errno(err, unix.EPERM))
	}, unix.SYS_MKDIRAT, 0, 8, 0o777, 0)
	fmt.Println(errno)
	// Output: bad address
}

// uname with a name of our own: a result is written to where the call says.
func ExampleTarget_WriteMem() {
	_, errno := supervised(func(r engine.Request) {
		var ours unix.Utsname
		copy(ours.Nodename[:], "sandbox")
		b := unsafe.Slice((*byte)(unsafe.Pointer(&ours)), unsafe.Sizeof(ours))
		if _, err := r.Target().WriteMem(r.Data().Args[0], b); err != nil {
			_ = r.Fail(target.Errno(err, unix.EPERM))
			return
		}
		_ = r.Return(0)
	}, unix.SYS_UNAME, uintptr(unsafe.Pointer(&names)), 0, 0, 0)
	fmt.Println(unix.ByteSliceToString(names.Nodename[:]), int(errno))
	// Output: sandbox 0
}

// A file is opened in the target's place, as itself would have, and the target gets the descriptor.
func ExampleTarget_OpenAt() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("what is in it"), 0o600); err != nil {
		log.Fatal(err)
	}
	filePath = append([]byte(file), 0)
	cwd := unix.AT_FDCWD
	fd, errno := supervised(func(r engine.Request) {
		d, t := r.Data(), r.Target()
		path, err := t.String(d.Args[1], target.PathMax)
		if err != nil {
			_ = r.Fail(target.Errno(err, unix.EPERM))
			return
		}
		fd, err := t.OpenAt(int(int32(d.Args[0])), path, target.How(d.Args[2], d.Args[3]))
		if err != nil {
			_ = r.Fail(target.Errno(err, unix.EACCES))
			return
		}
		defer unix.Close(fd)
		if err := r.ReturnFD(fd, d.Args[2]&unix.O_CLOEXEC != 0); err != nil {
			_ = r.Fail(unix.EMFILE)
		}
	}, unix.SYS_OPENAT, uintptr(cwd), uintptr(unsafe.Pointer(&filePath[0])), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errno != 0 {
		fmt.Println(errno)
		return
	}
	b := make([]byte, 100)
	n, err := unix.Read(int(fd), b)
	fmt.Println(string(b[:max(0, n)]), err)
	_ = unix.Close(int(fd))
	// Output: what is in it <nil>
}
