package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// A Client asks a status page.
type Client struct {
	base string
	http http.Client
}

// NewClient returns a client of the page at an address, as Listen takes it.
func NewClient(addr string) (*Client, error) {
	network, address, err := split(strings.TrimSuffix(strings.TrimPrefix(addr, "http://"), "/"))
	if err != nil {
		return nil, err
	}
	c := &Client{base: "http://" + address}
	t := &http.Transport{MaxIdleConns: 1, DisableCompression: true}
	if network == "unix" {
		c.base = "http://unknot"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", address)
		}
	}
	c.http.Transport = t
	return c, nil
}

// Close closes the client's connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) get(ctx context.Context, path string) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	return c.http.Do(q)
}

// maxSnapshot bounds what is read.
const maxSnapshot = 64 << 20

// ErrOther says that what answers there is no status page of this form.
var ErrOther = errors.New("what answers there is not unknot's status page, or another version's")

// Snapshot asks for one.
func (c *Client) Snapshot(ctx context.Context) (*Snapshot, error) {
	r, err := c.get(ctx, "/status")
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) { // without URL and address around it
			err = op.Err
		}
		return nil, err
	}
	defer r.Body.Close()
	s := new(Snapshot)
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/json" {
		return nil, fmt.Errorf("%w (status %s)", ErrOther, r.Status)
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, maxSnapshot)).Decode(s); err != nil {
		var syntax *json.SyntaxError
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &syntax) || errors.As(err, &wrong) {
			return nil, fmt.Errorf("%w: %w", ErrOther, err)
		}
		return nil, err
	}
	if s.Form != form {
		return nil, fmt.Errorf("%w (its form is %d, this program's %d)", ErrOther, s.Form, form)
	}
	return s, nil
}
