package osthread

import (
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Who is confined, by thread id, with the ioctls of a seccomp listener that it may make. A map that is
// read without a lock, since confined threads read it too.
var (
	confined sync.Map // int → []uint32
	howMany  atomic.Int32
)

// SetConfined notes that a filter will from now on kill the calling thread, or the process, for most system
// calls. It is called on the thread before it loads the filter, with the ioctls on seccomp listeners
// that the filter lets pass. Code that needs other calls then asks Confined, and fails with an error instead.
//
// The note ends with a thread of Start's. The caller must be locked to its thread.
func SetConfined(ioctls []uint32) {
	if _, had := confined.Swap(unix.Gettid(), slices.Clone(ioctls)); !had {
		howMany.Add(1)
	}
}

// Confined reports whether the calling thread has called SetConfined. While no thread has, it costs
// nothing; else a gettid, which the filter must let pass.
func Confined() bool {
	_, is := allowed()
	return is
}

// Refuses reports whether the calling thread is confined and may not make that ioctl.
func Refuses(ioctl uint32) bool {
	may, is := allowed()
	return is && !slices.Contains(may, ioctl)
}

func allowed() ([]uint32, bool) {
	if howMany.Load() == 0 {
		return nil, false
	}
	v, is := confined.Load(unix.Gettid())
	if !is {
		return nil, false
	}
	return v.([]uint32), true
}

// forget ends the note of the calling thread, or of one that ended and had its id.
func forget() {
	if howMany.Load() == 0 {
		return
	}
	if _, had := confined.LoadAndDelete(unix.Gettid()); had {
		howMany.Add(-1)
	}
}
