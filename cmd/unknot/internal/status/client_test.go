package status

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestClientOfOthers: what is no status page, or another version's, is told from one that is gone.
func TestClientOfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		other  bool
		says   string
	}{
		"another form": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"form":99}`)
		}, true, "its form is 99"},
		"no form": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{}`)
		}, true, "its form is 0"},
		"other JSON": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `[1]`)
		}, true, "cannot unmarshal"},
		"a page":  {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `<html>`) }, true, "status 200 OK"},
		"no page": {http.NotFound, true, "status 404"},
		"half one": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"form":`)
		}, false, "unexpected EOF"},
	} {
		s := httptest.NewServer(c.answer)
		client, err := NewClient(s.URL + "/")
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Snapshot(t.Context())
		if err == nil || errors.Is(err, ErrOther) != c.other || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		client.Close()
		s.Close()
	}
}

// TestClientWaitsNoLongerThanItIsTold, where somebody listens and does not answer.
func TestClientWaitsNoLongerThanItIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := NewClient("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Snapshot(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
