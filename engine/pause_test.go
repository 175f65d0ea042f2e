package engine

import "testing"

// TestPausesAreNumbered: who knew of one pause cannot end another.
func TestPausesAreNumbered(t *testing.T) {
	var r pause
	if r.on() {
		t.Fatal("a pause before the first")
	}
	first := r.begin()
	if n, on := r.now(); !on || n != first {
		t.Fatal(n, on)
	}
	if !r.end(first) || r.end(first) {
		t.Error("a pause ends once")
	}
	second := r.begin()
	if r.end(first) {
		t.Error("the second pause was ended as the first")
	}
	third := r.begin()
	if !r.on() || third == second || r.end(second) {
		t.Error("a pause that begins during another is a new one")
	}
	if !r.end(third) {
		t.Error("it does not end")
	}
	if r.on() {
		t.Error("still a pause")
	}
}
