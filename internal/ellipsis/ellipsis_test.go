package ellipsis

import "testing"

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"", "", true},
		{"", "a\n", false},
		{"a\n", "a", true},
		{"a \nb", "a\t\nb\n\n", true},
		{"a", "a\nb", false},
		{"a\nb", "a", false},
		{"took …ms (2+2)", "took 12.5ms (2+2)", true},
		{"took …ms", "took 12.5s", false},
		{"a…", "a", true},
		{"1\n…\n5", "1\n2\n3\n4\n5", true},
		{"1\n…\n5", "1\n5", true},
		{"1\n…\n6", "1\n2\n5", false},
		{"…", "", true},
		{"a.b", "axb", false},
	} {
		if Match(c.want, c.got) != c.ok {
			t.Errorf("Match(%q, %q) is %v", c.want, c.got, !c.ok)
		}
	}
}
