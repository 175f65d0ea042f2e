package rules

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/unknot/unknot/engine/syscalls"
	"github.com/unknot/unknot/engine/target"
	"golang.org/x/sys/unix"
)

// A class is a way in which an argument is compared.
type class uint8

const (
	byNumber  class = iota // in a register
	byPath                 // a file's name
	byText                 // as it is
	byTexts                // one of several
	byAddress              // of a socket
	byNothing
)

func (c class) memory() bool { return c != byNumber }

// classOf is how an argument of a call is compared.
func classOf(call string, p *syscalls.Param) class {
	switch p.Kind {
	case syscalls.Path:
		// These are names of files sometimes, or in some other place.
		if call == "mount" && p.Name == "source" || (call == "symlink" || call == "symlinkat") && p.Name == "target" {
			return byText
		}
		return byPath
	case syscalls.Text:
		return byText
	case syscalls.Texts:
		return byTexts
	case syscalls.Sockaddr:
		if call == "connect" || call == "bind" || call == "sendto" {
			return byAddress
		}
		return byNothing // the kernel writes it
	case syscalls.Length, syscalls.Buffer, syscalls.Struct, syscalls.Opaque, syscalls.None:
		return byNothing
	}
	return byNumber
}

// A condition is what a rule says of an argument: one of its alternatives holds.
type condition struct {
	arg       string
	at        place
	class     class
	patterns  []pattern // of a path or text
	addresses []addressPattern
	numbers   []numberPattern
}

// written are the alternatives as they stand in the file.
func (c *condition) written() (all []string) {
	for _, p := range c.patterns {
		all = append(all, p.glob)
	}
	for _, a := range c.addresses {
		all = append(all, a.text)
	}
	for _, n := range c.numbers {
		all = append(all, n.text)
	}
	return all
}

// covers reports whether c surely holds where o does.
func (c *condition) covers(o *condition) bool {
	if c.arg != o.arg || c.class != o.class {
		return false
	}
	if c.class == byPath || c.class == byText || c.class == byTexts {
		return covers(c.patterns, o.patterns)
	}
	mine := c.written()
	for _, w := range o.written() {
		if !slices.Contains(mine, w) {
			return false
		}
	}
	return true
}

func covers(all, of []pattern) bool {
	for i := range of {
		if !slices.ContainsFunc(all, func(p pattern) bool { return p.covers(&of[i]) }) {
			return false
		}
	}
	return true
}

func matchAny(all []pattern, s string) bool {
	for i := range all {
		if all[i].match(s) {
			return true
		}
	}
	return false
}

// A numberPattern is a value, some bits of one, or a range.
type numberPattern struct {
	text       string
	mask, want uint64
	low, high  int64
	ranged     bool
}

func (n *numberPattern) match(v uint64) bool {
	if n.ranged {
		return int64(v) >= n.low && int64(v) <= n.high
	}
	return v&n.mask == n.want
}

// value is an argument as number patterns compare it.
func value(a syscalls.Arg) uint64 {
	switch a.Kind {
	case syscalls.Int, syscalls.ID, syscalls.FD, syscalls.DirFD, syscalls.Signal:
		return uint64(int64(a.Int()))
	}
	return a.Value
}

// parseNumber reads what a number may be: 3, -1, 0644, O_CREAT|O_EXCL, 1024.. or 0..1023.
func parseNumber(s string, names []named) (numberPattern, error) {
	n := numberPattern{text: s, mask: math.MaxUint64}
	if low, high, ok := strings.Cut(s, ".."); ok {
		n.ranged, n.low, n.high = true, math.MinInt64, math.MaxInt64
		var err error
		if low != "" {
			n.low, err = strconv.ParseInt(low, 0, 64)
		}
		if high != "" && err == nil {
			n.high, err = strconv.ParseInt(high, 0, 64)
		}
		if err != nil || n.low > n.high || low+high == "" {
			return n, fmt.Errorf("%q is no range: write it as 0..1023, 1024.. or ..1023", s)
		}
		return n, nil
	}
	if v, err := strconv.ParseInt(s, 0, 64); err == nil {
		n.want = uint64(v)
		return n, nil
	}
	if v, err := strconv.ParseUint(s, 0, 64); err == nil {
		n.want = v
		return n, nil
	}
	n.mask = 0
	for part := range strings.SplitSeq(s, "|") {
		part = strings.TrimSpace(part)
		if v, err := strconv.ParseUint(part, 0, 64); err == nil {
			n.mask, n.want = n.mask|v, n.want|v
			continue
		}
		i := slices.IndexFunc(names, func(o named) bool { return o.name == part })
		switch {
		case i < 0 && len(names) == 0:
			return n, fmt.Errorf("%q is no number, and the values of this argument have no names here", part)
		case i < 0:
			all := make([]string, len(names))
			for i, o := range names {
				all[i] = o.name
			}
			return n, fmt.Errorf("unknown value %q: want a number or one of %s", part, strings.Join(all, ", "))
		case n.mask&names[i].mask&(n.want^names[i].value) != 0:
			return n, fmt.Errorf("%q cannot be: no value is %s and the others", s, part)
		}
		n.mask, n.want = n.mask|names[i].mask, n.want|names[i].value
	}
	return n, nil
}

// An addressPattern is some socket addresses.
type addressPattern struct {
	text      string
	family    int          // AF_*; -1: inet and inet6
	prefix    netip.Prefix // invalid: all
	low, high uint16       // ports
	path      *pattern     // of unix
	abstract  bool
}

const addressForms = "10.0.0.0/8, 127.0.0.1:53, [2001:db8::/32]:443, *:1..1023, unix:/run/*.sock, unix:@name or a family such as netlink"

func parseAddress(s string) (addressPattern, error) {
	a := addressPattern{text: s, family: -1, high: math.MaxUint16}
	if name, ok := strings.CutPrefix(s, "unix:"); ok {
		a.family = unix.AF_UNIX
		name, a.abstract = strings.CutPrefix(name, "@")
		if !a.abstract && name != "" && !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "*") {
			return a, fmt.Errorf("%q is no whole path: begin it with / or **", s)
		}
		p, err := newPattern(name, !a.abstract)
		a.path = &p
		if err != nil {
			return a, fmt.Errorf("%q: %w", s, err)
		}
		return a, nil
	}
	for _, f := range familyNames {
		if strings.EqualFold("AF_"+s, f.name) {
			a.family = int(f.value)
			return a, nil
		}
	}
	bad := fmt.Errorf("%q is no address: want such as %s", s, addressForms)
	host, port := s, ""
	if inside, rest, ok := strings.Cut(strings.TrimPrefix(s, "["), "]"); ok && s[0] == '[' {
		host = inside
		if rest != "" {
			if port, ok = strings.CutPrefix(rest, ":"); !ok || port == "" {
				return a, bad
			}
		}
	} else if strings.Count(s, ":") == 1 {
		if host, port, _ = strings.Cut(s, ":"); port == "" {
			return a, bad
		}
	}
	if port != "" {
		low, high, ranged := strings.Cut(port, "..")
		if !ranged {
			high = low
		}
		l, err := strconv.ParseUint(low, 10, 16)
		h, err2 := strconv.ParseUint(high, 10, 16)
		if err != nil || err2 != nil || l > h {
			return a, bad
		}
		a.low, a.high = uint16(l), uint16(h)
	}
	if host == "*" {
		return a, nil
	}
	var err error
	if strings.Contains(host, "/") {
		a.prefix, err = netip.ParsePrefix(host)
	} else {
		var addr netip.Addr
		if addr, err = netip.ParseAddr(host); err == nil {
			addr = addr.WithZone("").Unmap()
			a.prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
	}
	if err != nil {
		return a, bad
	}
	if a.prefix != a.prefix.Masked() {
		return a, fmt.Errorf("%q has bits beyond its prefix: write %v", s, a.prefix.Masked())
	}
	return a, nil
}

func (a *addressPattern) match(s *target.Sockaddr) bool {
	switch {
	case a.path != nil:
		if int(s.Family) != a.family || s.Abstract != a.abstract {
			return false
		}
		return a.path.match(s.Path)
	case a.family >= 0:
		return int(s.Family) == a.family
	case !s.Addr.IsValid():
		return false
	}
	ip := s.Addr.Addr().WithZone("").Unmap() // ::ffff:10.0.0.1 is 10.0.0.1
	port := s.Addr.Port()
	return port >= a.low && port <= a.high && (!a.prefix.IsValid() || a.prefix.Contains(ip))
}

var errRelative = errors.New("paths are compared whole: begin with / or **")

// condition reads what a rule says of an argument of its calls.
func (s *source) condition(e entry, calls []string) (condition, bool) {
	c := condition{arg: e.key, at: e.at}
	what := "where " + e.key
	items, ok := s.texts(e.val, what, "a text")
	var names []named
	kind := syscalls.None
	for _, call := range calls {
		ps, known := paramsOf(call)
		i := slices.IndexFunc(ps, func(p syscalls.Param) bool { return p.Name == e.key })
		switch {
		case !known:
			s.bad(e.at, "%s: the arguments of %s are not known here, so that it cannot have a rule with where", what, call)
			return c, false
		case i < 0:
			s.bad(e.at, "%s: %s has no such argument: its arguments are %s; give it a rule of its own", what, call, argNames(ps))
			return c, false
		}
		cl := classOf(call, &ps[i])
		if cl == byNothing {
			s.bad(e.at, "%s: what this argument of %s points to is not compared (it is %s): compare %s", what, call, article(&ps[i]), comparable(call, ps))
			return c, false
		}
		if kind != syscalls.None && cl != c.class {
			s.bad(e.at, "%s: it is not the same in all of these calls: give %s a rule of its own", what, call)
			return c, false
		}
		kind, c.class = ps[i].Kind, cl
		for _, n := range namesOf(call, &ps[i]) {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	for _, it := range items {
		var err error
		switch c.class {
		case byNumber:
			var n numberPattern
			n, err = parseNumber(it.text, names)
			c.numbers = append(c.numbers, n)
		case byAddress:
			var a addressPattern
			a, err = parseAddress(it.text)
			c.addresses = append(c.addresses, a)
		default:
			var p pattern
			if p, err = newPattern(it.text, c.class == byPath); err == nil && c.class == byPath && !strings.HasPrefix(it.text, "/") && !strings.HasPrefix(it.text, "**") {
				err = errRelative
			}
			if err == nil && c.class == byPath && p.re == nil && p.text != cleanPath(p.text) {
				err = fmt.Errorf("paths are compared without . and .. and doubled slashes: write %s", cleanPath(p.text))
			}
			if err != nil {
				err = fmt.Errorf("%q: %w", it.text, err)
			}
			c.patterns = append(c.patterns, p)
		}
		if err != nil {
			s.bad(it.at, "%s: %v", what, err)
			ok = false
		}
	}
	return c, ok
}

func article(p *syscalls.Param) string {
	switch p.Kind {
	case syscalls.Struct:
		return "a struct " + p.Points
	case syscalls.Buffer:
		return "a buffer"
	case syscalls.Sockaddr, syscalls.Length:
		return "written by the kernel"
	}
	return "opaque"
}

func argNames(ps []syscalls.Param) string {
	if len(ps) == 0 {
		return "none"
	}
	names := make([]string, len(ps))
	for i, p := range ps {
		names[i] = p.Name
	}
	return strings.Join(names, ", ")
}

// comparable are the arguments of a call that can be compared.
func comparable(call string, ps []syscalls.Param) string {
	var can []syscalls.Param
	for _, p := range ps {
		if classOf(call, &p) != byNothing {
			can = append(can, p)
		}
	}
	if len(can) == 0 {
		return "nothing of it"
	}
	return argNames(can)
}
