package target

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mappings is /proc/TID/maps by a descriptor, which is that address space's whatever becomes of the thread.
type mappings struct{ fd int }

// What a mapping may be used for; the bits are PROCMAP_QUERY's.
type access uint64

const (
	mayRead  access = 1 // PROCMAP_QUERY_VMA_READABLE
	mayWrite access = 2 // PROCMAP_QUERY_VMA_WRITABLE
)

// noQuery has the text read, for tests.
var noQuery bool

// upTo returns how many of the n bytes from addr on lie in mappings that may be used so.
func (m mappings) upTo(addr uint64, n int, for_ access) (int, error) {
	if !noQuery {
		may, err := m.queryUpTo(addr, n, for_)
		if err != unix.ENOTTY { // before Linux 6.11
			return may, err
		}
	}
	return textUpTo(io.NewSectionReader(preader(m.fd), 0, 1<<62), addr, n, for_)
}

func (m mappings) queryUpTo(addr uint64, n int, for_ access) (int, error) {
	for at := addr; ; {
		end, is, err := queryMapping(m.fd, at)
		switch {
		case err == unix.ENOENT, err == unix.ESRCH: // no mapping there, or none at all any more
			return int(at - addr), nil
		case err != nil:
			return 0, err
		case is&for_ == 0:
			return int(at - addr), nil
		case end-addr >= uint64(n):
			return n, nil
		}
		at = end
	}
}

// textUpTo is upTo by the text of /proc/TID/maps, whose lines are in order.
func textUpTo(r io.Reader, addr uint64, n int, for_ access) (int, error) {
	at := addr
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line == "" || err != nil {
			if err != nil && err != io.EOF {
				return 0, err
			}
			return int(at - addr), nil
		}
		var start, end uint64
		var perms string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &perms); err != nil {
			return 0, fmt.Errorf("read %q in maps: %w", strings.TrimSpace(line), err)
		}
		var is access
		if strings.HasPrefix(perms, "r") {
			is |= mayRead
		}
		if len(perms) > 1 && perms[1] == 'w' {
			is |= mayWrite
		}
		switch {
		case end <= at:
			continue
		case start > at || is&for_ == 0:
			return int(at - addr), nil
		case end-addr >= uint64(n):
			return n, nil
		}
		at = end
	}
}

type preader int

func (fd preader) ReadAt(p []byte, off int64) (int, error) {
	for {
		n, err := unix.Pread(int(fd), p, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, os.NewSyscallError("pread", err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}
