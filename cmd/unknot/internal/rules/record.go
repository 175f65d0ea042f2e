package rules

import (
	"encoding/hex"
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/filter"
	"github.com/unknot/unknot/engine/syscalls"
	"golang.org/x/sys/unix"
)

// all reads what a record says of the target, while it waits.
func (l *look) all() (err error) {
	var failed error
	if l.comm, failed = l.t.Comm(); errors.Is(failed, engine.ErrConfined) {
		return failed
	}
	if !l.known {
		return nil
	}
	for i := range l.call.Params {
		p := &l.call.Params[i]
		switch classOf(l.call.Name, p) {
		case byPath, byText:
			l.text(i)
		case byTexts:
			if p.Name != "envp" { // of which nobody wants the secrets in a log
				l.list(i)
			}
		case byAddress:
			l.address(i)
		}
		if p.Points == "open_how" {
			_, _ = l.how()
		}
	}
	return nil
}

// append adds the record of a call to b, a line of JSON.
func (l *look) append(b []byte, p *Policy, by *rule, said string, answered error) []byte {
	wait := l.q.Waited()
	b = append(b, `{"time":"`...)
	b = time.Now().Add(-wait).UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, `","container":`...)
	tag, _ := l.q.Source().Tag().(*Tag)
	if tag != nil {
		b = quote(b, tag.Container())
	} else {
		b = append(b, `""`...)
	}
	b = append(b, `,"pid":`...)
	b = strconv.AppendInt(b, int64(l.q.PID()), 10)
	b = append(b, `,"comm":`...)
	b = quote(b, l.comm)
	b = append(b, `,"call":`...)
	name := l.call.Name
	if !l.known {
		name = filter.Name(l.d.Arch, l.d.NR)
	}
	b = quote(b, name)
	if abi, _, ok := syscalls.ABIOf(l.d.Arch, l.d.NR); ok && abi != syscalls.Native() {
		b = append(b, `,"abi":`...)
		b = quote(b, abi.String())
	}
	var unread error
	switch {
	case l.known:
		b = append(b, `,"args":{`...)
		b, unread = l.appendArgs(b)
		b = append(b, '}')
	case l.failed != nil:
		unread = l.failed
	default:
		b = append(b, `,"registers":[`...)
		for i, v := range l.d.Args {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(b, `"0x`...), strconv.FormatUint(v, 16)...)
			b = append(b, '"')
		}
		b = append(b, ']')
	}
	if unread == nil {
		unread = l.stuck
	}
	if unread != nil {
		b = append(b, `,"unread":`...)
		b = quote(b, unread.Error())
	}
	b = append(b, `,"answer":`...)
	if errors.Is(answered, engine.ErrGone) && l.q.Answered() { // by the deadline, while a look or an open took its time
		answered = engine.ErrAnswered
	}
	b = quote(b, outcome(said, by, answered))
	if said == injects.String() {
		b = append(b, `,"file":`...)
		b = quote(b, by.file)
	}
	b = append(b, `,"wait_ns":`...)
	b = strconv.AppendInt(b, int64(wait), 10)
	b = append(b, `,"line":`...)
	b = strconv.AppendInt(b, int64(by.at.line), 10)
	return append(b, "}\n"...)
}

// outcome is what became of an answer.
func outcome(said string, by *rule, err error) string {
	switch {
	case err == nil:
		return said
	case errors.Is(err, engine.ErrGone):
		return "gone"
	case errors.Is(err, engine.ErrAnswered), errors.Is(err, engine.ErrSpent):
		return "late"
	}
	return "default" // the kernel refused the answer
}

func (l *look) appendArgs(b []byte) (_ []byte, unread error) {
	first := true
	key := func(name string) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = quote(b, name)
		b = append(b, ':')
	}
	failed := func(a *lookedAt) bool {
		if a.err != nil {
			b = append(b, "null"...)
			unread = errors.Join(unread, a.err)
		}
		return a.err != nil
	}
	raw := func(name, s string) {
		if !utf8.ValidString(s) { // JSON is text: here is what it was
			key(name + "_hex")
			b = append(b, '"')
			b = hex.AppendEncode(b, []byte(s))
			b = append(b, '"')
		}
	}
	for i := range l.call.Params {
		p := &l.call.Params[i]
		a := &l.args[i]
		switch c := classOf(l.call.Name, p); {
		case (c == byPath || c == byText) && a.read:
			if key(p.Name); !failed(a) {
				b = quote(b, a.text)
				raw(p.Name, a.text)
			}
		case c == byTexts && a.read:
			if key(p.Name); failed(a) {
				continue
			}
			b = append(b, '[')
			for j, s := range a.texts {
				if j > 0 {
					b = append(b, ',')
				}
				b = quote(b, s)
			}
			b = append(b, ']')
			if a.cut {
				key(p.Name + "_cut")
				b = append(b, "true"...)
			}
		case c == byAddress && a.read:
			if key(p.Name); failed(a) {
				continue
			}
			if a.addr.Raw == nil {
				b = append(b, "null"...)
			} else {
				b = quote(b, a.addr.String())
			}
		case c == byNumber:
			key(p.Name)
			b = appendNumber(b, l.call.Name, l.call.At(i))
		case p.Points == "open_how":
			how, err := l.how()
			key(p.Name)
			if err != nil {
				b = append(b, "null"...)
				unread = errors.Join(unread, err)
				continue
			}
			b = append(b, `{"flags":`...)
			b = quote(b, spell(openNames, how.Flags, syscalls.Flags))
			b = append(b, `,"mode":`...)
			b = quote(b, spell(nil, how.Mode, syscalls.Mode))
			b = append(b, `,"resolve":`...)
			b = quote(b, spell(resolveNames, how.Resolve, syscalls.Flags))
			b = append(b, '}')
		}
	}
	return b, unread
}

var resolveNames = []named{
	bit("RESOLVE_NO_XDEV", unix.RESOLVE_NO_XDEV), bit("RESOLVE_NO_MAGICLINKS", unix.RESOLVE_NO_MAGICLINKS), bit("RESOLVE_NO_SYMLINKS", unix.RESOLVE_NO_SYMLINKS),
	bit("RESOLVE_BENEATH", unix.RESOLVE_BENEATH), bit("RESOLVE_IN_ROOT", unix.RESOLVE_IN_ROOT), bit("RESOLVE_CACHED", 0x20),
}

// appendNumber writes numbers as numbers, and what has names as text.
func appendNumber(b []byte, call string, a syscalls.Arg) []byte {
	names := namesOf(call, &a.Param)
	switch {
	case a.Kind == syscalls.DirFD, a.Kind == syscalls.FD, a.Kind == syscalls.ID, a.Kind == syscalls.Int && names == nil:
		return strconv.AppendInt(b, int64(a.Int()), 10)
	case a.Kind == syscalls.Size, a.Kind == syscalls.Offset:
		return strconv.AppendUint(b, a.Value, 10)
	}
	return quote(b, spell(names, a.Value, a.Kind))
}

const hexDigits = "0123456789abcdef"

// quote writes a JSON string. What is not UTF-8 is U+FFFD in it.
func quote(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n
			continue
		}
		i++
	}
	return append(b, '"')
}
