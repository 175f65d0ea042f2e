// Package ellipsis compares what a program printed with what it should print,
// where … in the latter stands for what is different each time.
package ellipsis

import (
	"regexp"
	"strings"
)

// Match compares line by line, without the blanks at the ends of lines and the
// newlines at the end of the text. In want, … stands for any text within a line,
// and a line that is only … for any number of lines.
func Match(want, got string) bool { return match(lines(want), lines(got)) }

func lines(s string) []string {
	ls := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, l := range ls {
		ls[i] = strings.TrimRight(l, " \t")
	}
	return ls
}

func match(want, got []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if strings.TrimSpace(want[0]) == "…" {
		for i := range len(got) + 1 {
			if match(want[1:], got[i:]) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && line(want[0], got[0]) && match(want[1:], got[1:])
}

func line(want, got string) bool {
	parts := strings.Split(want, "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(got)
}
