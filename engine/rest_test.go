package engine

import "testing"

// TestRestsAreNumbered: who knew of one rest cannot end another.
func TestRestsAreNumbered(t *testing.T) {
	var r rest
	if r.on() {
		t.Fatal("a rest before the first")
	}
	first := r.begin()
	if n, on := r.now(); !on || n != first {
		t.Fatal(n, on)
	}
	if !r.end(first) || r.end(first) {
		t.Error("a rest ends once")
	}
	second := r.begin()
	if r.end(first) {
		t.Error("the second rest was ended as the first")
	}
	third := r.begin()
	if !r.on() || third == second || r.end(second) {
		t.Error("a rest that begins during another is a new one")
	}
	if !r.end(third) {
		t.Error("it does not end")
	}
	if r.on() {
		t.Error("still a rest")
	}
}
