package rules

import (
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"
)

// A pattern is a text, or a glob of texts.
type pattern struct {
	glob string         // as it was written
	text string         // of one without wildcards
	lead string         // the text before the first wildcard
	open bool           // and nothing but a wildcard for all else follows
	re   *regexp.Regexp // of one with some; it takes time in proportion to what is matched
}

// newPattern reads a glob. In one of paths * stops at a slash and ** does not; elsewhere there is only *.
func newPattern(glob string, paths bool) (pattern, error) {
	p := pattern{glob: glob}
	var re, text strings.Builder
	wild := false
	re.WriteString(`\A(?s:`)
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; c {
		case '*':
			if !wild {
				p.lead, p.open = text.String(), true
			}
			wild = true
			across := !paths
			for i+1 < len(glob) && glob[i+1] == '*' {
				across = true
				i++
			}
			p.open = p.open && across && i+1 == len(glob)
			if across {
				re.WriteString(`.*`)
			} else {
				re.WriteString(`[^/]*`)
			}
		case '?':
			if !wild {
				p.lead = text.String()
			}
			wild, p.open = true, false
			if paths {
				re.WriteString(`[^/]`)
			} else {
				re.WriteString(`.`)
			}
		case '[', ']', '{', '}':
			return p, errors.New("there are no classes and braces in patterns: list the alternatives, or write \\" + string(c) + " for the character itself")
		case '\\':
			if i++; i == len(glob) {
				return p, errors.New("ends with a backslash: write two for one")
			}
			c = glob[i]
			fallthrough
		default:
			text.WriteByte(c)
			if c < utf8.RuneSelf {
				re.WriteString(regexp.QuoteMeta(string(rune(c))))
			} else {
				re.WriteByte(c) // a part of a longer character
			}
		}
	}
	if !wild {
		p.text, p.lead = text.String(), text.String()
		return p, nil
	}
	re.WriteString(`)\z`)
	var err error
	if p.re, err = regexp.Compile(re.String()); err != nil {
		return p, errors.New("is no text: write it in UTF-8")
	}
	return p, nil
}

func (p *pattern) match(s string) bool {
	if p.re != nil {
		return p.re.MatchString(s)
	}
	return p.text == s
}

// covers reports whether p surely matches all that q does.
func (p *pattern) covers(q *pattern) bool {
	return p.glob == q.glob || q.re == nil && p.match(q.text) || p.open && strings.HasPrefix(q.lead, p.lead)
}
