package syscalls

import (
	"fmt"
	"strings"

	"github.com/unknot/unknot/engine/notify"
)

// A Kind says what an argument is. Those from Path on are addresses in the target.
type Kind uint8

const (
	Int      Kind = iota // a number with a sign
	ID                   // a process, user or group id; -1 is one too
	FD                   // a descriptor
	DirFD                // a descriptor of a directory, or unix.AT_FDCWD
	Flags                // bits, or a choice of several
	Mode                 // permission bits of a file, and its type
	Signal               // the number of one
	Size                 // a length in bytes
	Offset               // a position in a file, 64 bits also where registers have 32
	Path                 // → a name of a file, with a zero byte at its end
	Text                 // → a string with a zero byte at its end that names no file
	Texts                // → addresses of strings, with a zero at their end
	Sockaddr             // → a socket address, as long as the Size or Length that follows
	Length               // → a length, which the kernel changes
	Buffer               // → bytes, as many as a Size says
	Struct               // → a struct; Points names it
	Opaque               // an address that is meant for others, or a struct or a number by another argument
	None                 // there is no such argument
)

// String is the name of the constant, in lower case.
func (k Kind) String() string { return kindNames[k] }

var kindNames = [...]string{"int", "id", "fd", "dirfd", "flags", "mode", "signal", "size", "offset", "path", "text", "texts", "sockaddr", "length", "buffer", "struct", "opaque", "none"}

// Pointer reports whether an argument is an address whose kind is known.
func (k Kind) Pointer() bool { return k >= Path && k <= Struct }

// A Param is an argument that a call takes.
type Param struct {
	Name   string
	Kind   Kind
	Points string // of a Struct: its C name, without "struct"
	at     uint8  // register
	short  bool   // the kernel looks at 32 bits of it, also where registers have 64
}

// An Arg is an argument that a call has. Its methods read it as what the caller meant, whatever was in the
// parts of the register that the kernel does not look at.
type Arg struct {
	Param
	Value uint64 // the register, or both of them where an Offset takes two
}

// Int is a number with a sign, also of an [FD], an [ID] or a [Signal].
func (a Arg) Int() int { return int(int32(a.Value)) }

// Bits are [Flags] or a [Mode].
func (a Arg) Bits() uint64 { return a.Value }

// Addr is where a pointer points to in the target; 0 is NULL.
func (a Arg) Addr() uint64 { return a.Value }

// A Call is a trapped call whose arguments are known.
type Call struct {
	ABI    ABI
	Name   string
	Params []Param // not to be changed
	args   [6]uint64
}

// Decode says what a trapped call is; ok is false if its arguments are not known here. It allocates nothing.
func Decode(d *notify.Data) (c Call, ok bool) {
	a, nr, ok := ABIOf(d.Arch, d.NR)
	if !ok || nr < 0 || int(nr) >= len(params[a]) || params[a][nr] == nil {
		return Call{}, false
	}
	return Call{ABI: a, Name: tables[a][nr], Params: params[a][nr], args: d.Args}, true
}

// Arg is the argument of that name. A name that the call has not is of kind None.
func (c *Call) Arg(name string) Arg {
	for i := range c.Params {
		if c.Params[i].Name == name {
			return c.At(i)
		}
	}
	return Arg{Param: Param{Name: name, Kind: None}}
}

// First is the first argument of that kind, or one of kind None.
func (c *Call) First(k Kind) Arg {
	for i := range c.Params {
		if c.Params[i].Kind == k {
			return c.At(i)
		}
	}
	return Arg{Param: Param{Kind: None}}
}

// At is argument i of Params.
func (c *Call) At(i int) Arg {
	p := c.Params[i]
	v := c.args[p.at]
	switch {
	case p.Kind == Offset && !c.ABI.Wide():
		v = v&0xffffffff | c.args[p.at+1]<<32
	case p.short, !c.ABI.Wide(), c.ABI == X32 && p.Kind.Pointer():
		v &= 0xffffffff
	}
	return Arg{p, v}
}

// String is like a line of strace without what pointers point to.
func (c Call) String() string {
	var b strings.Builder
	b.WriteString(c.Name)
	for i := range c.Params {
		sep := ", "
		if i == 0 {
			sep = "("
		}
		a := c.At(i)
		switch {
		case a.Kind <= DirFD, a.Kind == Signal:
			fmt.Fprintf(&b, "%s%s=%d", sep, a.Name, a.Int())
		case a.Kind == Mode:
			fmt.Fprintf(&b, "%s%s=%#o", sep, a.Name, a.Value)
		case a.Kind == Size, a.Kind == Offset:
			fmt.Fprintf(&b, "%s%s=%d", sep, a.Name, a.Value)
		default:
			fmt.Fprintf(&b, "%s%s=%#x", sep, a.Name, a.Value)
		}
	}
	if len(c.Params) == 0 {
		b.WriteByte('(')
	}
	b.WriteByte(')')
	return b.String()
}
