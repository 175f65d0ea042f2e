package status

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/unknot/unknot/internal/unixsocket"
)

// unixPrefix begins an address that is a path.
const unixPrefix = "unix:"

// DefaultAddr is where a daemon's page is, unless told otherwise.
const DefaultAddr = "127.0.0.1:9393"

// socketMode is who may connect to a socket: its owner.
const socketMode = 0o600

// A badAddress is an address that can be nobody's.
type badAddress struct{ error }

// IsBadAddress reports whether Listen's error is a mistake in the address, and not what became of it.
func IsBadAddress(err error) bool {
	var bad badAddress
	return errors.As(err, &bad)
}

// split is an address as package net has it.
func split(addr string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		if path == "" {
			return "", "", badAddress{fmt.Errorf("address %q: no path after unix", addr)}
		}
		if err := unixsocket.Check(path); err != nil {
			return "", "", badAddress{err}
		}
		return "unix", path, nil
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", "", badAddress{fmt.Errorf("address %q: want HOST:PORT, such as 127.0.0.1:9393, or unix:/PATH", addr)}
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "", "", badAddress{fmt.Errorf("address %q: port %q: want a number from 0 to 65535", addr, port)}
	}
	return "tcp", addr, nil
}

// Listen opens an address: HOST:PORT, where no host is every one, or unix:/PATH. A socket that is there and
// that nobody listens to is replaced; only its owner may connect to the new one. Closing the listener removes it.
func Listen(addr string) (net.Listener, error) {
	network, address, err := split(addr)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		l, err := unixsocket.Listen("unix", address, socketMode)
		if errors.Is(err, unixsocket.ErrLive) {
			err = fmt.Errorf("socket %q: another process listens there: stop it, or choose another path", address)
		}
		if err != nil {
			return nil, err
		}
		return &unixListener{UnixListener: l, file: unixsocket.Own(address)}, nil
	}
	l, err := net.Listen(network, address)
	var at string
	if err != nil {
		at = address
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("address %q: another process listens there: stop it, or choose another port (0: any)", at)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("address %q: ports below 1024 take privilege: choose another", at)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("address %q: this machine has no such address: choose one of its own, or none for all", at)
	case err != nil:
		return nil, fmt.Errorf("address %q: %w", at, err)
	}
	return l, nil
}

// A unixListener removes its path in the end, if the path is still its own.
type unixListener struct {
	*net.UnixListener
	file unixsocket.File
	once sync.Once
}

func (l *unixListener) Close() error {
	l.once.Do(func() { l.file.Remove() }) // first: who finds the path gone has nobody to wait for
	return l.UnixListener.Close()
}

// limit has at most n connections of l open at once; others wait to be accepted.
func limit(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, free: make(chan struct{}, n), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	free   chan struct{} // one in it for each connection
	once   sync.Once
	closed chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConn{Conn: c, done: sync.OnceFunc(func() { <-l.free })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	done func()
}

func (c *limitedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}
