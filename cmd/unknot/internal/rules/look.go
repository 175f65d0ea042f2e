package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/syscalls"
	"github.com/unknot/unknot/engine/target"
	"golang.org/x/sys/unix"
)

// A look is a call with what was read of its target so far: each argument once, so that all rules, the answer
// and the record are of the same bytes.
type look struct {
	q      engine.Request
	t      target.Target
	d      notify.Data // by which the arguments are decoded
	call   syscalls.Call
	known  bool  // the arguments are
	failed error // why they could not be read, of a call by socketcall(2)
	stuck  error // why a rule could not be asked
	args   [6]lookedAt
	opened struct {
		read bool
		how  unix.OpenHow
		err  error
	}
	comm string
}

// lookedAt is an argument that was read.
type lookedAt struct {
	read, whole bool
	text        string // of a path or text
	absolute    string // of a path
	texts       []string
	cut         bool // there are more
	addr        target.Sockaddr
	err, wrong  error // of the read, of absolute
}

func newLook(q engine.Request, c *chain, d notify.Data) *look {
	l := &look{q: q, t: q.Target(), d: d}
	if c.args > 0 {
		l.failed = l.unpack(c)
		if l.failed != nil {
			return l
		}
	}
	l.call, l.known = syscalls.Decode(&l.d)
	return l
}

// unpack reads the arguments of a call by socketcall(2), and makes it the call itself.
func (l *look) unpack(c *chain) error {
	words := make([]byte, 4*c.args)
	if _, err := l.t.ReadMem(l.d.Args[1]&0xffffffff, words); err != nil {
		return err
	}
	l.d.NR = c.direct
	l.d.Args = [6]uint64{}
	for i := range c.args {
		l.d.Args[i] = uint64(binary.NativeEndian.Uint32(words[4*i:]))
	}
	return nil
}

// match reports whether all conditions hold. An error says that the target's memory was not readable.
func (l *look) match(conditions []bound) (bool, error) {
	for i := range conditions {
		c := &conditions[i]
		if l.failed != nil {
			return false, l.failed
		}
		ok, err := l.holds(c.condition, c.arg)
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (l *look) holds(c *condition, i int) (bool, error) {
	switch c.class {
	case byNumber:
		return c.holds(value(l.call.At(i))), nil
	case byPath:
		p, err := l.absolute(i)
		return err == nil && matchAny(c.patterns, p), err
	case byText:
		a := l.text(i)
		return a.err == nil && matchAny(c.patterns, a.text), a.err
	case byTexts:
		a := l.list(i)
		for _, s := range a.texts {
			if matchAny(c.patterns, s) {
				return true, nil
			}
		}
		if a.err == nil && a.cut {
			return false, &target.Error{Op: "read strings", TID: l.t.TID(), Where: fmt.Sprintf("more than %d bytes", maxTexts), Err: unix.E2BIG}
		}
		return false, a.err
	case byAddress:
		a := l.address(i)
		if a.err != nil || a.addr.Raw == nil {
			return false, a.err
		}
		for j := range c.addresses {
			if c.addresses[j].matches(l, i) {
				return true, nil
			}
		}
	}
	return false, nil
}

// text reads argument i, a path or another string.
func (l *look) text(i int) *lookedAt {
	a := &l.args[i]
	if !a.read {
		a.read = true
		a.text, a.err = l.t.String(l.call.At(i).Addr(), target.PathMax)
	}
	return a
}

// maxTexts bounds what is read of argv.
const maxTexts = 32 << 10

// list reads argument i, strings.
func (l *look) list(i int) *lookedAt {
	a := &l.args[i]
	if a.read {
		return a
	}
	a.read = true
	addr := l.call.At(i).Addr()
	if a.texts, a.err = l.t.Strings(addr, maxTexts); !errors.Is(a.err, unix.E2BIG) {
		return a
	}
	// Too long: as many from the start as there is room for, so that length hides nothing of it.
	a.err, a.cut = nil, true
	size := l.t.PointerSize()
	p := make([]byte, size)
	for left := maxTexts; left > 0; addr += uint64(size) {
		if _, a.err = l.t.ReadMem(addr, p); a.err != nil {
			return a
		}
		var at uint64
		if size == 4 {
			at = uint64(binary.NativeEndian.Uint32(p))
		} else {
			at = binary.NativeEndian.Uint64(p)
		}
		if at == 0 {
			return a
		}
		s, err := l.t.String(at, left)
		if err != nil {
			var b []byte
			if b, a.err = make([]byte, min(left, 1024)), nil; !errors.Is(err, unix.ENAMETOOLONG) {
				a.err = err
				return a
			}
			n, _ := l.t.ReadMem(at, b)
			a.texts = append(a.texts, string(b[:n]))
			return a
		}
		a.texts = append(a.texts, s)
		left -= len(s) + 1 + size
	}
	return a
}

// address reads argument i, a socket address, whose length is the argument behind it. Its Raw is nil if there is none.
func (l *look) address(i int) *lookedAt {
	a := &l.args[i]
	if a.read {
		return a
	}
	a.read = true
	addr := l.call.At(i).Addr()
	if addr == 0 && l.call.Name == "sendto" || i+1 >= len(l.call.Params) {
		return a
	}
	a.addr, a.err = l.t.Sockaddr(addr, l.call.At(i+1).Value)
	return a
}

// matches compares the address in argument i. A path of a socket is made whole as any other.
func (a *addressPattern) matches(l *look, i int) bool {
	s := l.args[i].addr
	if s.Family == unix.AF_UNIX && !s.Abstract && s.Path != "" {
		if whole, err := l.whole(s.Path, unix.AT_FDCWD); err == nil {
			s.Path = whole
		}
	}
	return a.match(&s)
}

// absolute is the path in argument i as a whole one: from the target's working directory or descriptor on, without
// . and .. and doubled slashes. Links are not followed.
func (l *look) absolute(i int) (string, error) {
	a := l.text(i)
	if a.err != nil {
		return "", a.err
	}
	if !a.whole {
		a.whole = true
		dir := unix.AT_FDCWD
		for j := i - 1; j >= 0; j-- {
			if l.call.Params[j].Kind == syscalls.DirFD {
				dir = l.call.At(j).Int()
				break
			}
		}
		name := a.text
		rooted, err := l.rooted()
		if rooted {
			name = strings.TrimPrefix(path.Clean("/"+name), "/")
		}
		if a.wrong = err; err == nil {
			a.absolute, a.wrong = l.whole(name, dir)
		}
	}
	return a.absolute, a.wrong
}

// whole makes a name that the target uses, below its directory dir, a whole path from its root on.
func (l *look) whole(name string, dir int) (string, error) {
	if strings.HasPrefix(name, "/") {
		return path.Clean(name), nil
	}
	proc := "/proc/" + strconv.Itoa(l.t.TID())
	link := proc + "/cwd"
	if dir != unix.AT_FDCWD {
		link = proc + "/fd/" + strconv.Itoa(dir)
	}
	base, err := os.Readlink(link)
	var root string
	if err == nil {
		root, err = os.Readlink(proc + "/root")
	}
	if !l.q.Alive() {
		return "", engine.ErrGone // of what was read nothing is true
	}
	bad := func(ours bool, errno error) error {
		return &target.Error{Op: "read directory", TID: l.t.TID(), Where: link, Ours: ours, Err: errno}
	}
	switch {
	case errors.Is(err, unix.ENOENT) && dir != unix.AT_FDCWD:
		return "", bad(false, unix.EBADF)
	case err != nil:
		var errno syscall.Errno
		if !errors.As(err, &errno) {
			errno = unix.EIO
		}
		return "", bad(true, errno)
	case !strings.HasPrefix(base, "/"): // a socket, a pipe
		return "", bad(false, unix.ENOTDIR)
	}
	// Where the target's root is a directory of our own mounts, links show what is above it.
	if root != "/" {
		if below, ok := strings.CutPrefix(base, root); ok && (below == "" || below[0] == '/') {
			base = below
		}
	}
	return path.Join("/", base, name), nil
}

// how are the flags, mode and resolution of a call that opens.
func (l *look) how() (unix.OpenHow, error) {
	if !l.opened.read {
		l.opened.read = true
		l.opened.how, l.opened.err = l.readHow()
	}
	return l.opened.how, l.opened.err
}

func (l *look) readHow() (how unix.OpenHow, err error) {
	switch l.call.Name {
	case "openat2":
		wrong := func(errno syscall.Errno) error {
			return &target.Error{Op: "read open_how", TID: l.t.TID(), Err: errno}
		}
		p, size := l.call.Arg("how"), l.call.Arg("size").Value
		if size < unix.SizeofOpenHow {
			return how, wrong(unix.EINVAL)
		}
		if size > 4096 {
			return how, wrong(unix.E2BIG)
		}
		b := make([]byte, size)
		if _, err := l.t.ReadMem(p.Addr(), b); err != nil {
			return how, err
		}
		for _, c := range b[unix.SizeofOpenHow:] {
			if c != 0 { // of a kernel that does not exist yet
				return how, wrong(unix.E2BIG)
			}
		}
		how.Flags, how.Mode, how.Resolve = binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:]), binary.NativeEndian.Uint64(b[16:])
		return how, nil
	case "creat":
		return target.How(unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC, l.call.Arg("mode").Bits()), nil
	}
	return target.How(l.call.Arg("flags").Bits(), l.call.Arg("mode").Bits()), nil
}

// rooted reports whether the call has its path begin at its directory, also after a slash.
func (l *look) rooted() (bool, error) {
	if l.call.Name != "openat2" {
		return false, nil
	}
	how, err := l.how()
	return how.Resolve&unix.RESOLVE_IN_ROOT != 0, err
}
