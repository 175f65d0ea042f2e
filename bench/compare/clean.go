package compare

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// longLine is from which length on a line is no result: the readers of the format
// refuse lines of 64 KiB, whatever they are.
const longLine = 60_000

// clean makes text in Go benchmark format of what is found in files of that name:
// UTF-16 (a Windows shell's redirection), a byte order mark, the events of go test
// -json, lines that are not for us. Lines keep their numbers, but for those of events.
func clean(label string, data []byte) (string, []byte, error) {
	if data = decode(data); len(data) == 0 {
		return label, nil, fmt.Errorf("%s: the file is empty", label)
	}
	for magic, what := range map[string]string{"\x1f\x8b": "gzip", "PK\x03\x04": "zip", "\x28\xb5\x2f\xfd": "zstd", "BZh": "bzip2", "\xfd7zXZ": "xz"} {
		if bytes.HasPrefix(data, []byte(magic)) {
			return label, nil, fmt.Errorf("%s: it is compressed (%s): decompress it first", label, what)
		}
	}
	if data[len(data)-1] != '\n' {
		return label, nil, fmt.Errorf("%s: the last line has no end: the file is truncated", label)
	}
	if isEvents(data) {
		data = fromEvents(data)
		label += " (the text of its events)"
	}
	data, err := mendLines(label, data)
	return label, data, err
}

// decode makes UTF-8 without marks of UTF-8 and UTF-16, with marks or without.
func decode(data []byte) []byte {
	if rest, ok := bytes.CutPrefix(data, []byte("\xef\xbb\xbf")); ok {
		return rest
	}
	var order binary.ByteOrder
	ascii := func(b byte) bool { return b == '\n' || b == '\r' || b >= ' ' && b < 0x7f }
	switch {
	case len(data) < 4 || len(data)%2 != 0:
		return data
	case data[0] == 0xff && data[1] == 0xfe:
		data, order = data[2:], binary.LittleEndian
	case data[0] == 0xfe && data[1] == 0xff:
		data, order = data[2:], binary.BigEndian
	case data[1] == 0 && data[3] == 0 && ascii(data[0]) && ascii(data[2]):
		order = binary.LittleEndian
	case data[0] == 0 && data[2] == 0 && ascii(data[1]) && ascii(data[3]):
		order = binary.BigEndian
	default:
		return data
	}
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = order.Uint16(data[2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}

// An event is a line of go test -json (go doc test2json).
type event struct{ Action, Package, Test, Output string }

func isEvents(data []byte) bool {
	for line := range bytes.Lines(data) {
		var e event
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line[0] == '{' && json.Unmarshal(line, &e) == nil && e.Action != ""
		}
	}
	return false
}

// fromEvents is what go test would have printed, package by package: the events of
// packages that ran at once are mixed.
func fromEvents(data []byte) []byte {
	var order []string
	text := map[string]*bytes.Buffer{}
	for line := range bytes.Lines(data) {
		var e event
		if json.Unmarshal(line, &e) != nil {
			continue // what a build said between the events
		}
		b := text[e.Package]
		if b == nil {
			b = new(bytes.Buffer)
			text[e.Package], order = b, append(order, e.Package)
		}
		switch e.Action {
		case "output":
			b.WriteString(e.Output)
		case "fail", "build-fail":
			fmt.Fprintf(b, "\nFAIL\t%s %s\n", e.Package, e.Test)
		}
	}
	var all bytes.Buffer
	for _, p := range order {
		all.Write(text[p].Bytes())
		if n := all.Len(); n > 0 && all.Bytes()[n-1] != '\n' {
			all.WriteByte('\n')
		}
	}
	return all.Bytes()
}

var (
	// rest is what go test prints once a benchmark is done, behind its name.
	restLine = regexp.MustCompile(`^\s*\d+\t\s*[-+.\d][-+.\deE]* \S+`)
	restEnd  = regexp.MustCompile(`\d+\t\s*[-+.\d][-+.\deE]* \S+/\S+(\s.*)?$`)
)

// mendLines takes out lines that only look like results, and puts together results
// that were printed in two parts: go test prints the name first, and what the
// benchmark itself prints then comes between.
func mendLines(label string, data []byte) ([]byte, error) {
	lines := strings.Split(string(data), "\n")
	for i, line := range lines {
		line = strings.TrimSuffix(line, "\r")
		lines[i] = line
		name, found := strings.CutPrefix(line, "Benchmark")
		if !found {
			if len(line) > longLine {
				lines[i] = "" // a log's, and none of ours
			}
			continue
		}
		if r, _ := utf8.DecodeRuneInString(name); unicode.IsLower(r) {
			lines[i] = "" // "Benchmarking …": no name of a benchmark goes on so
			continue
		}
		if len(line) > longLine {
			return nil, fmt.Errorf("%s:%d: a result of %d bytes: readers of the format end at 64 KiB: take the line out, or shorten the benchmark's name", label, i+1, len(line))
		}
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		if _, err := strconv.Atoi(words[1]); err == nil {
			continue
		}
		if rest := restEnd.FindString(line); rest != "" {
			lines[i] = words[0] + "\t" + rest
			continue
		}
		if j := continued(lines[i+1:]); j >= 0 {
			lines[i], lines[i+1+j] = "", words[0]+"\t"+lines[i+1+j]
			continue
		}
		switch _, err := strconv.ParseFloat(words[1], 64); {
		case words[0] == "Benchmark" || strings.HasSuffix(words[0], ":"):
			lines[i] = "" // a sentence
		case err != nil:
			return nil, fmt.Errorf("%s:%d: %q stands where %s has its number of iterations, and the rest of the result is nowhere: "+
				"let the benchmark print to standard error, or take the line out", label, i+1, shorten(strings.Join(words[1:], " ")), words[0])
		}
	}
	return []byte(strings.Join(lines, "\n")), nil
}

// continued is where the rest of a result stands, before any other result; -1 for nowhere.
func continued(lines []string) int {
	for i, l := range lines {
		switch {
		case restLine.MatchString(l):
			return i
		case strings.HasPrefix(l, "Benchmark") && !strings.HasPrefix(l, "Benchmarking"):
			return -1
		}
	}
	return -1
}

func shorten(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:59]) + "…"
	}
	return s
}
