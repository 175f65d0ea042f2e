// Command page makes docs/confine.md: the text beside it, and the table of
// package confine.
package main

import (
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"os"

	"github.com/unknot/unknot/confine"
)

//go:embed confine.md
var text []byte

func main() {
	out := flag.String("o", "", "`file` to write")
	flag.Parse()
	if err := write(*out); err != nil {
		fmt.Fprintf(os.Stderr, "page: %v\n", err)
		os.Exit(1)
	}
}

func write(file string) error {
	head, tail, ok := bytes.Cut(text, []byte("{{rules}}\n"))
	if !ok {
		return fmt.Errorf("the text has no place for the rules")
	}
	var b bytes.Buffer
	b.WriteString("<!-- Made by go generate from confine/internal/page; do not edit. -->\n")
	b.Write(head)
	if err := confine.WriteRules(&b, confine.Rules()); err != nil {
		return err
	}
	b.Write(tail)
	return os.WriteFile(file, b.Bytes(), 0o644)
}
