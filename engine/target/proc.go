package target

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// proc is a descriptor of /proc, once it was found to be that of our pid namespace. With it a chroot or a
// mount of somebody's does not matter.
var proc struct {
	mu sync.Mutex
	fd int // 0: none yet
}

func procFD() (int, error) { return openProc(true) }

// openProc opens it. One that must not be own need only have a self, as that of our parent who started us in another pid namespace.
func openProc(own bool) (int, error) {
	proc.mu.Lock()
	defer proc.mu.Unlock()
	if proc.fd != 0 {
		return proc.fd, nil
	}
	fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /proc: %w", err)
	}
	var fs unix.Statfs_t
	self := make([]byte, 16)
	n := 0
	if err = unix.Fstatfs(fd, &fs); err == nil && fs.Type == unix.PROC_SUPER_MAGIC {
		n, err = unix.Readlinkat(fd, "self", self)
	}
	if err != nil || n == 0 || own && string(self[:n]) != strconv.Itoa(unix.Getpid()) {
		_ = unix.Close(fd)
		// Thread ids in there would be other processes'.
		return -1, fmt.Errorf("%w: /proc is not of this process's pid namespace: mount one (mount -t proc proc /proc)", unix.ENOTDIR)
	}
	proc.fd = fd
	return fd, nil
}

// open opens a file of /proc/TID. Whether that was the target's thread, alive says later.
func (t Target) open(op, name string, flags int) (int, error) {
	dir, err := procFD()
	if err != nil {
		return -1, t.ours(op, "", err)
	}
	path := strconv.Itoa(t.tid) + "/" + name
	for {
		fd, err := unix.Openat(dir, path, flags|unix.O_CLOEXEC, 0)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR:
			continue
		}
		return -1, t.fail(op, "/proc/"+path, err)
	}
}

// file reads a small file of /proc/TID.
func (t Target) file(op, name string) (string, error) {
	if err := t.check(op); err != nil {
		return "", err
	}
	fd, err := t.open(op, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	s, err := readAll(fd)
	if gone := t.alive(); gone != nil {
		return "", gone
	}
	if err != nil {
		return "", t.ours(op, "/proc/"+strconv.Itoa(t.tid)+"/"+name, err)
	}
	return s, nil
}

func readAll(fd int) (string, error) {
	b, err := io.ReadAll(io.NewSectionReader(preader(fd), 0, 1<<62))
	return string(b), err
}

// Comm is the thread's name (PR_SET_NAME), which a target may set to anything: for logs.
func (t Target) Comm() (string, error) {
	s, err := t.file("read name", "comm")
	return strings.TrimSuffix(s, "\n"), err
}

// Exe is the program that the target executes, as a path in its own mount namespace seen from our root. If
// the file was removed, the path ends with " (deleted)". For logs: a path says little about who it is.
func (t Target) Exe() (string, error) {
	const op = "read program"
	if err := t.check(op); err != nil {
		return "", err
	}
	dir, err := procFD()
	if err != nil {
		return "", t.ours(op, "", err)
	}
	name := strconv.Itoa(t.tid) + "/exe"
	buf := make([]byte, 2*PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", t.fail(op, "/proc/"+name, err)
	}
	return string(buf[:n]), t.alive()
}

// TGID is the id of the target's process (its thread group) in our pid namespace.
func (t Target) TGID() (int, error) {
	s, err := t.status("read process id")
	if err != nil {
		return 0, err
	}
	return s.tgid, nil
}

// IDs is who the target is, by /proc/TID/status. User and group ids are those of our user namespace, where one
// that has none there is 65534; capabilities are the target's in its own.
type IDs struct {
	UID, EUID, SUID, FSUID int
	GID, EGID, SGID, FSGID int
	Groups                 []int
	// Capabilities as sets of bits, 1<<unix.CAP_CHOWN and so on.
	Effective, Permitted, Inheritable, Bounding, Ambient uint64
	Umask                                                int
	NoNewPrivs                                           bool
}

// Has reports whether the capability unix.CAP_* is effective.
func (i *IDs) Has(capability int) bool { return i.Effective>>capability&1 != 0 }

// IDs reads who the target is.
func (t Target) IDs() (IDs, error) {
	s, err := t.status("read ids")
	return s.ids, err
}

type status struct {
	tgid int
	ids  IDs
}

func (t Target) status(op string) (s status, err error) {
	text, err := t.file(op, "status")
	if err != nil {
		return s, err
	}
	if s, err = parseStatus(text); err != nil {
		return s, t.ours(op, "/proc/"+strconv.Itoa(t.tid)+"/status", err)
	}
	return s, nil
}

func parseStatus(text string) (s status, err error) {
	seen := 0
	s.ids.Umask = -1 // before Linux 4.7 it is not told
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		f := strings.Fields(value)
		var e error
		need := func(base int, to ...*int) {
			seen++
			if len(f) != len(to) {
				e = errors.New("other fields than expected")
				return
			}
			for i := range to {
				n, err := strconv.ParseInt(f[i], base, 64)
				e = errors.Join(e, err)
				*to[i] = int(n)
			}
		}
		set := func(to *uint64) {
			seen++
			*to, e = strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
		i := &s.ids
		switch name {
		case "Tgid":
			need(10, &s.tgid)
		case "Uid":
			need(10, &i.UID, &i.EUID, &i.SUID, &i.FSUID)
		case "Gid":
			need(10, &i.GID, &i.EGID, &i.SGID, &i.FSGID)
		case "Groups":
			seen++
			for _, g := range f {
				n, err := strconv.Atoi(g)
				e = errors.Join(e, err)
				i.Groups = append(i.Groups, n)
			}
		case "CapInh":
			set(&i.Inheritable)
		case "CapPrm":
			set(&i.Permitted)
		case "CapEff":
			set(&i.Effective)
		case "CapBnd":
			set(&i.Bounding)
		case "CapAmb":
			set(&i.Ambient)
		case "Umask":
			need(8, &i.Umask)
			seen--
		case "NoNewPrivs":
			i.NoNewPrivs = strings.TrimSpace(value) == "1"
		}
		if e != nil {
			return s, fmt.Errorf("line %q: %w", strings.TrimSpace(line), e)
		}
	}
	if seen != 9 {
		return s, fmt.Errorf("%w: %d of 9 lines that are needed", os.ErrInvalid, seen)
	}
	return s, nil
}
