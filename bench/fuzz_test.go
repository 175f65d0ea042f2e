package bench

import (
	"testing"
	"time"
)

// FuzzParseWork: what is read is written and read as the same, and the parts of a storm with it lie within the storm, in order.
func FuzzParseWork(f *testing.F) {
	for _, s := range []string{"0", "50us", "50us~1", "sleep:1ms", "spin:1us~0.5", "50us+200us@1s+50us@2s", "sleep:1ms+50us~1@300ms", "0+0@1ns", "sleep:spin:1us", "1us+@", "1us+2us@-1s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		w, err := ParseWork(s)
		if err != nil {
			return
		}
		again, err := ParseWork(w.String())
		if err != nil || again.String() != w.String() || again.Longest() != w.Longest() || w.Longest() < 0 {
			t.Fatalf("%q is %v, which is %v, %v", s, w, again, err)
		}
		if w.Script == nil {
			return
		}
		d := w.Script.Last() + time.Second
		if d < 0 {
			return
		}
		last := time.Duration(0)
		for _, p := range w.Script.parts(d) {
			if p.from < last || p.to < p.from || p.next < p.to || p.next > d {
				t.Fatalf("%v: a part from %v to %v, before %v, after %v of %v", w, p.from, p.to, p.next, last, d)
			}
			last = p.next
		}
	})
}
