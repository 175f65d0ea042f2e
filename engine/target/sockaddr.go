package target

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Sockaddr is a socket address as connect(2), bind(2) and sendto(2) take it.
type Sockaddr struct {
	Family uint16 // unix.AF_*
	// Addr is of AF_INET and AF_INET6. An IPv6 zone is the number of an interface of the target's network namespace.
	Addr netip.AddrPort
	// Path is of AF_UNIX: a path as the target sees it, an abstract name without its leading NUL, or
	// "" for an unnamed socket (bind(2) picks a name then).
	Path     string
	Abstract bool
	// Raw is what was read, of all families; AF_UNSPEC ends an association.
	Raw []byte
}

// String is for logs: "127.0.0.1:80", "unix:/run/x", "unix:@name", "family 16".
func (s Sockaddr) String() string {
	switch {
	case s.Addr.IsValid():
		return s.Addr.String()
	case s.Family == unix.AF_UNIX && s.Abstract:
		return "unix:@" + s.Path
	case s.Family == unix.AF_UNIX:
		return "unix:" + s.Path
	}
	return "family " + strconv.Itoa(int(s.Family))
}

// Sizes of addresses, linux/socket.h, linux/in6.h, linux/un.h.
const (
	maxSockaddr  = 128 // struct sockaddr_storage
	sizeofIn     = 16
	minSizeofIn6 = 24 // SIN6_LEN_RFC2133: without a scope
	sizeofUn     = 110
)

// Sockaddr reads the socket address of length bytes at addr, both arguments of the target's call. Lengths are
// judged as the kernel does: too short or too long for its family is an error that wraps unix.EINVAL.
func (t Target) Sockaddr(addr, length uint64) (Sockaddr, error) {
	const op = "read socket address"
	if err := t.check(op); err != nil {
		return Sockaddr{}, err
	}
	n := int32(length) // an int for the kernel
	bad := func(why string) error {
		return &Error{Op: op, TID: t.tid, Where: fmt.Sprintf("address %#x: length %d: %s", addr, n, why), Err: unix.EINVAL}
	}
	var err error
	var raw []byte
	if n < 2 || n > maxSockaddr {
		err = bad(fmt.Sprintf("must be 2 to %d", maxSockaddr))
	} else {
		raw = make([]byte, n)
		_, err = t.read(t.address(addr), raw)
	}
	if gone := t.alive(); gone != nil {
		return Sockaddr{}, gone
	}
	if err != nil {
		return Sockaddr{}, err
	}
	s, why := parseSockaddr(raw)
	if why != "" {
		return s, bad(why)
	}
	return s, nil
}

// parseSockaddr says what is wrong with raw, which has at least a family.
func parseSockaddr(raw []byte) (s Sockaddr, why string) {
	s = Sockaddr{Family: binary.NativeEndian.Uint16(raw), Raw: raw}
	switch s.Family {
	case unix.AF_INET:
		if len(raw) < sizeofIn {
			return s, fmt.Sprintf("an AF_INET address has %d", sizeofIn)
		}
		s.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), binary.BigEndian.Uint16(raw[2:]))
	case unix.AF_INET6:
		if len(raw) < minSizeofIn6 {
			return s, fmt.Sprintf("an AF_INET6 address has %d at least", minSizeofIn6)
		}
		ip := netip.AddrFrom16([16]byte(raw[8:24]))
		if len(raw) >= 28 {
			// As for the kernel, a scope counts for link-local addresses only.
			if scope := binary.NativeEndian.Uint32(raw[24:]); scope != 0 && (ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() || ip.IsInterfaceLocalMulticast()) {
				ip = ip.WithZone(strconv.FormatUint(uint64(scope), 10))
			}
		}
		s.Addr = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(raw[2:]))
	case unix.AF_UNIX:
		name := raw[2:]
		switch {
		case len(raw) > sizeofUn:
			return s, fmt.Sprintf("an AF_UNIX address has %d at most", sizeofUn)
		case len(name) == 0:
		case name[0] == 0:
			s.Abstract, s.Path = true, string(name[1:])
		default:
			s.Path = unix.ByteSliceToString(name)
		}
	}
	return s, ""
}
