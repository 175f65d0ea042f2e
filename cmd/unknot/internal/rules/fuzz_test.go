package rules

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// Whatever a file holds, Parse ends, with errors that have a place in the file, or with a policy that answers any call.
func FuzzParse(f *testing.F) {
	for _, text := range examples {
		f.Add([]byte(text))
	}
	for _, r := range refusals {
		f.Add([]byte(r.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse("p", text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || len(e.Problems) == 0 {
				t.Fatalf("%v", err)
			}
			lines := bytes.Count(text, []byte{'\n'}) + bytes.Count(text, []byte{'\r'}) + 2
			for _, q := range e.Problems {
				if q.Line < 1 || q.Line > lines || q.Column < 1 || q.What == "" || strings.Contains(q.What, "%!") && !bytes.Contains(text, []byte("%!")) {
					t.Errorf("%+v of %d lines", q, lines)
				}
			}
			return
		}
		for _, s := range []agent.State{{}, {Metadata: "m", Container: agent.Container{ID: "web-1", Annotations: map[string]string{"team": "x"}}}} {
			v := p.view(&s)
			for nr := range int32(500) {
				for _, arch := range []uint32{notify.NativeArch, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, 0} {
					d := notify.Data{Arch: arch, NR: nr, Args: [6]uint64{uint64(nr)}}
					c := v.chain(&d)
					if i := c.next(&d, 0); c.steps[i].rule == nil {
						t.Fatalf("call %d of %#x has no answer", nr, arch)
					}
				}
			}
		}
		cfg := engine.Config{Handler: NewRouter(p, nil)}
		p.Settings().Config(&cfg)
		if strings.Contains(p.String(), "%!") && !bytes.Contains(text, []byte("%!")) || len(p.State()) != p.Rules()+1 {
			t.Error(p)
		}
	})
}
