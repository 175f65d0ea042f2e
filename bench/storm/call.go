package storm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/cbpf"
	"golang.org/x/sys/unix"
)

// A Call is a system call that targets make. Those other than getppid carry
// [Mark] in the high half of their sixth argument, which none of them uses, and
// only then they are trapped: what the target's runtime calls for itself is not.
// The low half is an [Arrival]'s Tag.
type Call uint8

const (
	anyCall Call = iota // drawn from the storm's Mix
	getppid             // no arguments
	Gettid              // no arguments
	Openat              // a path
	statx               // a path and a buffer
	mkdirat             // a path
	connect             // a socket address

	numCalls
)

// Mark is in bits 32 to 63 of the sixth argument of marked calls.
const Mark = 0x756e6b6e

// callInfo is what a call is made of. The paths do not exist and the descriptor
// is none, so that a supervisor that continues the calls changes nothing.
var callInfo = [numCalls]struct {
	name string
	nr   uintptr
	args func() [5]uintptr
	mem  int // the argument that points to what a supervisor has to read, or -1
}{
	getppid: {"getppid", unix.SYS_GETPPID, noArgs, -1},
	Gettid:  {"gettid", unix.SYS_GETTID, noArgs, -1},
	Openat:  {"openat", unix.SYS_OPENAT, func() [5]uintptr { return [5]uintptr{atCWD, pathAddr(), unix.O_RDONLY | unix.O_CLOEXEC} }, 1},
	statx:   {"statx", unix.SYS_STATX, func() [5]uintptr { return [5]uintptr{atCWD, pathAddr(), 0, unix.STATX_BASIC_STATS, bufAddr()} }, 1},
	mkdirat: {"mkdirat", unix.SYS_MKDIRAT, func() [5]uintptr { return [5]uintptr{atCWD, pathAddr(), 0o700} }, 1},
	connect: {"connect", unix.SYS_CONNECT, func() [5]uintptr { return [5]uintptr{^uintptr(0), sockAddr(), unix.SizeofSockaddrInet4} }, 1},
}

const atCWD = ^uintptr(-unix.AT_FDCWD - 1)

func noArgs() [5]uintptr { return [5]uintptr{} }

func (c Call) String() string {
	if c == anyCall {
		return "any"
	}
	return callInfo[c].name
}

// memory returns the address in the target's memory that the trapped call d
// points to, and how many bytes of it are worth reading. ok is false for calls
// without such an argument.
func memory(d *notify.Data) (addr uintptr, n int, ok bool) {
	for c := range callInfo {
		if i := &callInfo[c]; c > 0 && int32(i.nr) == d.NR && i.mem >= 0 {
			n = len(path)
			if Call(c) == connect {
				n = unix.SizeofSockaddrInet4
			}
			return uintptr(d.Args[i.mem]), n, true
		}
	}
	return 0, 0, false
}

// CallOf is the call of that number, or that of getppid if targets do not make it.
func CallOf(arch uint32, nr int32) Call {
	for c := getppid; c < numCalls; c++ {
		if arch == notify.NativeArch && callInfo[c].nr == uintptr(nr) {
			return c
		}
	}
	return getppid
}

// A Mix is the weights of the calls that targets make. The zero value is getppid
// alone. Mixes are comparable.
type Mix [numCalls]uint16

// maxWeight bounds one weight.
const maxWeight = 1000

// ParseMix reads "openat:3,getppid:1"; a weight of 1 may be left out.
func ParseMix(s string) (m Mix, err error) {
	for part := range strings.SplitSeq(s, ",") {
		name, w, weighted := strings.Cut(part, ":")
		weight := 1
		if weighted {
			if weight, err = strconv.Atoi(w); err != nil || weight < 1 || weight > maxWeight {
				return Mix{}, fmt.Errorf("calls %q: weight %q: want a whole number from 1 to %d", s, w, maxWeight)
			}
		}
		c := slices.Index(callNames(), name) + int(getppid)
		if c < int(getppid) {
			return Mix{}, fmt.Errorf("calls %q: no call %q: there are %s", s, name, strings.Join(callNames(), ", "))
		}
		if m[c] != 0 {
			return Mix{}, fmt.Errorf("calls %q: %s is there twice", s, name)
		}
		m[c] = uint16(weight)
	}
	return m.normal(), nil
}

// callNames lists the calls.
func callNames() (names []string) {
	for c := getppid; c < numCalls; c++ {
		names = append(names, c.String())
	}
	return names
}

// normal makes getppid alone the zero value.
func (m Mix) normal() Mix {
	alone := m
	alone[getppid] = 0
	if alone == (Mix{}) {
		return Mix{}
	}
	return m
}

// String is what ParseMix reads.
func (m Mix) String() string {
	var parts []string
	for c, w := range m {
		switch w {
		case 0:
		case 1:
			parts = append(parts, Call(c).String())
		default:
			parts = append(parts, fmt.Sprint(Call(c), ":", w))
		}
	}
	if parts == nil {
		return getppid.String()
	}
	return strings.Join(parts, ",")
}

// HasMemory reports whether a call of the mix points to memory of the target.
func (m Mix) HasMemory() bool {
	for c, w := range m {
		if w > 0 && callInfo[c].mem >= 0 {
			return true
		}
	}
	return false
}

// calls are those with a weight.
func (m Mix) calls() (cs []Call) {
	for c, w := range m {
		if w > 0 {
			cs = append(cs, Call(c))
		}
	}
	if cs == nil {
		cs = []Call{getppid}
	}
	return cs
}

// deck is the calls in the proportions of their weights, exact to 1 in len.
func (m Mix) deck(n int) []Call {
	cs := m.calls()
	if len(cs) == 1 {
		return slices.Repeat(cs, n)
	}
	var total, sum int
	for _, c := range cs {
		total += int(m[c])
	}
	deck := make([]Call, 0, n)
	for _, c := range cs {
		sum += int(m[c])
		for len(deck) < n*sum/total {
			deck = append(deck, c)
		}
	}
	return deck
}

// draw draws a call.
func (m Mix) draw(r *rand.Rand) Call {
	cs := m.calls()
	if len(cs) == 1 {
		return cs[0]
	}
	var total int
	for _, c := range cs {
		total += int(m[c])
	}
	k := r.IntN(total)
	for _, c := range cs {
		if k -= int(m[c]); k < 0 {
			return c
		}
	}
	panic("unreachable")
}

// filter traps the given calls: getppid always, the others when marked.
func filter(cs []Call) ([]unix.SockFilter, error) {
	var nrs []int
	marked := false
	for _, c := range cs {
		nrs = append(nrs, int(callInfo[c].nr))
		marked = marked || c != getppid
	}
	trap, err := notify.TrapProgram(nrs...)
	if err != nil || !marked {
		return trap, err
	}
	const highOfArg5 = cbpf.Args + 5*8 + 4
	return append([]unix.SockFilter{
		{Code: cbpf.Load, K: highOfArg5},
		{Code: cbpf.Equal, K: Mark, Jt: 3},
		{Code: cbpf.Load, K: cbpf.NR},
		{Code: cbpf.Equal, K: unix.SYS_GETPPID, Jt: 1},
		{Code: cbpf.Return, K: unix.SECCOMP_RET_ALLOW},
	}, trap...), nil
}
