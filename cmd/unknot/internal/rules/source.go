package rules

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// A Problem is something wrong in a policy, and where.
type Problem struct {
	Line, Column int // from 1; a column is a character
	What         string
}

// An Error is all that is wrong in a policy, in the file's order.
type Error struct {
	Name     string
	Problems []Problem
}

// Error is a line for each problem: name:line:column: what.
func (e *Error) Error() string { return strings.Join(lines(e.Name, e.Problems), "\n") }

func lines(name string, problems []Problem) []string {
	all := make([]string, len(problems))
	for i, p := range problems {
		all[i] = fmt.Sprintf("%s:%d:%d: %s", name, p.Line, p.Column, p.What)
	}
	return all
}

// place is where something stands in the file.
type place struct{ line, column int }

func at(n ast.Node) place {
	switch n := n.(type) {
	case *ast.MappingNode: // its own token is a colon
		if len(n.Values) > 0 && !n.IsFlowStyle {
			return at(n.Values[0])
		}
	case *ast.MappingValueNode:
		return at(n.Key)
	}
	return placeOf(n.GetToken())
}

func placeOf(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{1, 1}
	}
	return place{max(1, t.Position.Line), max(1, t.Position.Column)}
}

// A source is a file that is being read: what is wrong is gathered, and reading goes on.
type source struct {
	problems, notes []Problem
}

func (s *source) bad(p place, format string, args ...any) {
	s.problems = append(s.problems, Problem{p.line, p.column, fmt.Sprintf(format, args...)})
}

func (s *source) note(p place, format string, args ...any) {
	s.notes = append(s.notes, Problem{p.line, p.column, fmt.Sprintf(format, args...)})
}

func inOrder(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return problems
}

// maxFile bounds a policy: what is longer is another file.
const maxFile = 256 << 10

// maxDepth bounds how deep lists and mappings stand in each other, which is 4 in a policy: the parser takes the
// square of it, and a stack.
const maxDepth = 100

// tooDeep is the line in which there are more brackets open than there may be; 0 if none is.
func tooDeep(text []byte) int {
	line, depth, dashes := 1, 0, 0
	for i, c := range text {
		switch c {
		case '\n':
			line++
			dashes = 0
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		case '-', '?', ':':
			if i+1 < len(text) && text[i+1] == ' ' {
				dashes++
			}
		}
		if depth > maxDepth || dashes > maxDepth {
			return line
		}
	}
	return 0
}

// document is the only document of the text; nil if it is empty or cannot be read.
func (s *source) document(text []byte) (doc ast.Node) {
	if len(text) > maxFile {
		s.bad(place{1, 1}, "has %d bytes, and a policy at most %d: is it the right file?", len(text), maxFile)
		return nil
	}
	if i := slices.Index(text, 0); i >= 0 {
		s.bad(place{1 + strings.Count(string(text[:i]), "\n"), 1}, "has a zero byte: is it a text file?")
		return nil
	}
	if line := tooDeep(text); line > 0 {
		s.bad(place{line, 1}, "has brackets or dashes more than %d deep: is it the right file?", maxDepth)
		return nil
	}
	defer func() {
		if p := recover(); p != nil { // the parser's, of nonsense
			doc = nil
			s.bad(place{1, 1}, "is not YAML that can be read: %v", p)
		}
	}()
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey()) // of which we tell better
	if err != nil {
		var e yaml.Error
		if !errors.As(err, &e) {
			s.bad(place{1, 1}, "is not YAML: %v", err)
			return nil
		}
		p, hint := placeOf(e.GetToken()), ""
		if charAt(text, p) == '*' {
			hint = ": quote a text that begins with *"
		}
		s.bad(p, "is not YAML: %s%s", e.GetMessage(), hint)
		return nil
	}
	for _, d := range file.Docs {
		switch {
		case d == nil || d.Body == nil:
		case doc != nil:
			s.bad(at(d.Body), "a second document: a policy is one, so remove the line --- before it")
			return doc
		default:
			doc = d.Body
		}
	}
	return doc
}

// charAt is the character at a place of the text; 0 if there is none.
func charAt(text []byte, p place) rune {
	for range p.line - 1 {
		_, text, _ = bytes.Cut(text, []byte{'\n'})
	}
	for i, c := range []rune(string(text)) {
		if i == p.column-1 {
			return c
		}
	}
	return 0
}

// plain refuses what YAML has beside texts, lists and mappings.
func (s *source) plain(n ast.Node, what, want string) bool {
	why := ""
	switch n.(type) {
	case *ast.AnchorNode:
		why = "an anchor (&): anchors and aliases are not read, write it out, or quote a text that begins with &"
	case *ast.AliasNode:
		why = "an alias (*): anchors and aliases are not read, write it out, or quote a text that begins with *"
	case *ast.TagNode:
		why = "a tag (!): tags are not read, remove it, or quote a text that begins with !"
	case *ast.MergeKeyNode:
		why = "a merge (<<): it is not read, write it out"
	case *ast.NullNode, nil:
		why = "nothing here: want " + want
	}
	if why == "" {
		return true
	}
	p := place{1, 1}
	if n != nil {
		p = at(n)
	}
	s.bad(p, "%s: %s", what, why)
	return false
}

// An entry is a key with its value.
type entry struct {
	key string
	at  place
	val ast.Node
}

// mapping are the entries of n, each key once.
func (s *source) mapping(n ast.Node, what, want string) (all []entry, ok bool) {
	if !s.plain(n, what, want) {
		return nil, false
	}
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		s.bad(at(n), "%s is %s: want %s", what, kindOf(n), want)
		return nil, false
	}
	first := map[string]place{}
	for _, v := range values {
		key, p, ok := s.text(v.Key, "a key", "text")
		if !ok {
			continue
		}
		if f, twice := first[key]; twice {
			s.bad(p, "duplicate key %q: it is in line %d already, remove one of them", key, f.line)
			continue
		}
		first[key] = p
		all = append(all, entry{key, p, v.Value})
	}
	return all, true
}

// text is a scalar, as it was written.
func (s *source) text(n ast.Node, what, want string) (string, place, bool) {
	if m, ok := n.(*ast.MappingKeyNode); ok {
		s.bad(placeOf(m.Start), "%s: a ? is not read, write key: value", what)
		return "", place{}, false
	}
	if !s.plain(n, what, want) {
		return "", place{}, false
	}
	switch n := n.(type) {
	case *ast.LiteralNode:
		return strings.TrimRight(n.Value.Value, "\n"), at(n), true
	case *ast.StringNode:
		return n.Value, at(n), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, at(n), true
	}
	s.bad(at(n), "%s is %s: want %s", what, kindOf(n), want)
	return "", place{}, false
}

// An item is a text of the file.
type item struct {
	text string
	at   place
}

// texts are a scalar, or a list of some.
func (s *source) texts(n ast.Node, what, want string) (all []item, ok bool) {
	list, isList := n.(*ast.SequenceNode)
	if !isList {
		t, p, ok := s.text(n, what, want+", or a list of some")
		if !ok {
			return nil, false
		}
		return []item{{t, p}}, true
	}
	if len(list.Values) == 0 {
		s.bad(at(n), "%s is an empty list: name at least one", what)
		return nil, false
	}
	ok = true
	for _, v := range list.Values {
		t, p, good := s.text(v, what, want)
		if !good {
			ok = false
			continue
		}
		all = append(all, item{t, p})
	}
	return all, ok
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.StringNode, *ast.LiteralNode:
		return "a text"
	}
	return "something else"
}
