package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"testing"
)

// trickle reads a few bytes at a time.
type trickle struct {
	r io.Reader
	n int
}

func (t trickle) Read(p []byte) (int, error) { return t.r.Read(p[:min(len(p), t.n)]) }

// The shapes of states that runtimes were seen to send.
var seen = []string{
	`{"ociVersion":"0.2.0","fds":["seccompFd"],"pid":4422,"metadata":"MKDIR=foo","state":{"ociVersion":"1.0.2","id":"x","status":"creating","pid":4422,"bundle":"/b","annotations":{"k":"v"}}}`,
	"{\n    \"ociVersion\": \"0.2.0\",\n    \"fds\": [\n        \"seccompFd\"\n    ],\n    \"pid\": 0,\n    \"state\": {\n        \"id\": \"y\",\n        \"pid\": 0,\n        \"bundle\": \".\"\n    }\n}\n",
	`{"fds":["stdin","seccompFd"],"more":[1,{"x":null}]}`,
}

func TestParse(t *testing.T) {
	for _, s := range seen {
		for _, n := range []int{1, 7, 1 << 20} {
			// The pipe has no end: waiting for one would hang.
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.WriteString(s); err != nil {
				t.Fatal(err)
			}
			got, err := parse(trickle{r, n}, len(s))
			if err != nil || len(got.FDs) == 0 {
				t.Errorf("%q by %d: %+v, %v", s, n, got, err)
			}
			_ = r.Close()
			_ = w.Close()
		}
		var large *TooLargeError
		if _, err := parse(bytes.NewReader([]byte(s)), bytes.LastIndexByte([]byte(s), '}')); !errors.As(err, &large) {
			t.Errorf("past the limit: %v", err)
		}
	}
}

// FuzzParse: whatever comes, in whatever pieces, parse returns what encoding/json makes of a whole value, or an error.
func FuzzParse(f *testing.F) {
	for _, s := range seen {
		f.Add([]byte(s), uint8(3))
		f.Add([]byte(s+"x"), uint8(200))
		f.Add([]byte(s[:len(s)/2]), uint8(1))
	}
	f.Add([]byte(`[1]`), uint8(9))
	f.Add([]byte(` 1`), uint8(1))
	f.Add([]byte(`{"fds":[]}{}`), uint8(9))
	f.Add([]byte("{\"fds\":[\"\xff\"],\"FDS\":[\"a\"]}"), uint8(9))
	f.Fuzz(func(t *testing.T, data []byte, piece uint8) {
		const most = 4096
		got, err := parse(trickle{bytes.NewReader(data), int(piece) + 1}, most)
		var want State
		werr := json.Unmarshal(data, &want)
		first := bytes.TrimLeft(data, " \t\r\n")
		whole := werr == nil && len(first) > 0 && first[0] == '{'
		switch {
		case err != nil && got != nil:
			t.Fatal("a state and an error")
		case err != nil && whole && len(data) <= most:
			t.Fatalf("%q: %v", data, err)
		case err == nil && whole && !reflect.DeepEqual(*got, want):
			t.Fatalf("%q: %+v, want %+v", data, *got, want)
		case err == nil && !whole:
			// What follows the value had not come yet. The value is one.
			ok := false
			for end := range data {
				var s State
				if data[end] == '}' && json.Unmarshal(data[:end+1], &s) == nil && reflect.DeepEqual(s, *got) {
					ok = true
				}
			}
			if !ok {
				t.Fatalf("%q: accepted as %+v", data, *got)
			}
		}
	})
}
