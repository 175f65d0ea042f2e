// Command rundocs runs the commands in the documentation and compares what they
// print with what the documentation says, so that neither can rot.
//
// A block of commands is a fenced block of type console. The line before it says
// what to do with it, and there must be one:
//
//	<!-- run -->
//	<!-- run: exit 2 -->
//	<!-- not run: takes an hour -->
//
// Lines that start with "$ " are commands (a backslash at the end continues
// them), run by bash at the root of the repository with bin first on PATH; the
// lines after one are what it prints, on both outputs. In those, … stands for
// any text, and a line that is only … for any number of lines. Without such
// lines the output is free. The status of each command must be 0, or as stated.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/unknot/unknot/internal/ellipsis"
)

// timeout bounds one command.
const timeout = 3 * time.Minute

func main() {
	files := os.Args[1:]
	if len(files) == 0 {
		out, err := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md").Output()
		if err != nil {
			fmt.Fprintln(os.Stderr, "rundocs: list *.md:", err)
			os.Exit(1)
		}
		files = strings.Fields(string(out))
	}
	if err := run(files, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "rundocs:", err)
		os.Exit(1)
	}
}

func run(files []string, progress io.Writer) error {
	var errs []error
	n := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		cmds, err := parse(file, string(text))
		if err != nil {
			errs = append(errs, err)
		}
		for _, c := range cmds {
			n++
			fmt.Fprintf(progress, "%s:%d: $ %s\n", c.file, c.line, c.text)
			if err := c.run(); err != nil {
				errs = append(errs, fmt.Errorf("%s:%d: $ %s: %w", c.file, c.line, c.text, err))
			}
		}
	}
	fmt.Fprintf(progress, "%d commands in %d files\n", n, len(files))
	return errors.Join(errs...)
}

// A command is one command of a document and what it should print.
type command struct {
	file string
	line int
	text string
	want []string
	exit int
}

var marker = regexp.MustCompile(`^<!-- (run|not run: .+|run: exit (\d+)) -->$`)

func parse(file, text string) ([]command, error) {
	var cmds []command
	var errs []error
	var mark, fence string // mark is the last marker, until another line follows it
	exit, inBlock, skip := 0, false, false
	for i, line := range strings.Split(text, "\n") {
		bare := strings.TrimSpace(line)
		switch {
		case inBlock && bare == fence:
			inBlock = false
		case inBlock && skip:
		case inBlock && strings.HasPrefix(bare, "$ "):
			cmds = append(cmds, command{file: file, line: i + 1, text: bare[2:], exit: exit})
		case inBlock && len(cmds) == 0:
			errs = append(errs, fmt.Errorf("%s:%d: a block must start with a command", file, i+1))
		case inBlock:
			c := &cmds[len(cmds)-1]
			if s, more := strings.CutSuffix(c.text, `\`); more {
				c.text = s + bare
			} else {
				c.want = append(c.want, strings.TrimRight(line, " \t"))
			}
		case strings.HasPrefix(bare, "```"):
			fence = bare[:len(bare)-len(strings.TrimLeft(bare, "`"))]
			inBlock, skip = true, true
			if strings.TrimLeft(bare, "`") == "console" {
				m := marker.FindStringSubmatch(mark)
				switch {
				case m == nil:
					errs = append(errs, fmt.Errorf("%s:%d: mark the block: <!-- run --> or <!-- not run: why -->", file, i+1))
				case !strings.HasPrefix(m[1], "not"):
					exit, _ = strconv.Atoi(m[2])
					skip = false
				}
			}
			mark = ""
		case bare != "":
			mark = bare
		}
	}
	if inBlock {
		errs = append(errs, fmt.Errorf("%s: a block does not end", file))
	}
	return cmds, errors.Join(errs...)
}

func (c command) run() error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", c.text)
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"),
		"MAKEFLAGS=", "MAKELEVEL=") // under make, or a make would say where it is
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	if code := cmd.ProcessState.ExitCode(); code != c.exit {
		return fmt.Errorf("exit status %d, want %d; it printed:\n%s", code, c.exit, out)
	}
	if c.want != nil && !ellipsis.Match(strings.Join(c.want, "\n"), string(out)) {
		return fmt.Errorf("it printed:\n%s\nwant:\n%s", out, strings.Join(c.want, "\n"))
	}
	return nil
}
