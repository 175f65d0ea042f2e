package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/cmd/unknot/internal/status"
	"github.com/unknot/unknot/cmd/unknot/internal/top"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// topSettings are top's flags.
type topSettings struct {
	addr     string
	interval time.Duration
	once     bool
	order    string
}

// topTimeout is how long an answer may take.
const topTimeout = 5 * time.Second

func newTopCmd() *cobra.Command {
	s := topSettings{}
	c := &cobra.Command{
		Use:   "top [flags] [address]",
		Short: "watch what a running unknot serve or run does",
		Long: `top draws in the terminal what goes on in unknot serve or run that was started with
--status: how deep the queues are, how many calls come, are dropped and go stale, and
how long they wait, by listener (container), system call and receive thread.

Rates and quantiles are of the last interval, and "wait" begins when a call was
received; how long it waited in the kernel before is in none of them. Depths are of
the moment, DROPPED and HIGH of all the time. Listeners of one name are one line. Where
one has a wait target, DEPTH is held against the limit in force instead of the capacity,
and TARGET, SERVICE (of a call while workers are busy, from which the limit is) and
CHANGES (of the limit, so far) take the place of other columns.

Keys: q or Ctrl-C ends, s changes the order of listeners, j and k (or arrows, page up
and down) scroll them, space asks at once.

With --once, or where standard output is no terminal, one table is printed after one
interval; on a terminal that cannot be drawn on (TERM=dumb) there is one for each interval.
NO_COLOR turns colours off. The address is that of --status: HOST:PORT or unix:/PATH.`,
		Example: `  unknot run --status unix:/tmp/make.status -- make & unknot top unix:/tmp/make.status
  unknot top --once 127.0.0.1:9393`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s.addr = status.DefaultAddr
			if len(args) > 0 {
				s.addr = args[0]
			}
			return runTop(cmd.Context(), &s, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	fl := c.Flags()
	fl.DurationVarP(&s.interval, "interval", "i", time.Second, "how often to ask")
	fl.BoolVar(&s.once, "once", false, "print one table, and end")
	fl.StringVar(&s.order, "sort", top.ByRate.String(), "listeners by calls, drops, depth or name")
	return c
}

func runTop(ctx context.Context, s *topSettings, stdin io.Reader, stdout io.Writer) error {
	if s.interval < 10*time.Millisecond {
		return usageErrorf("--interval %v: want 10ms or more", s.interval)
	}
	order, ok := top.ParseOrder(s.order)
	if !ok {
		return usageErrorf("--sort %q: want calls, drops, depth or name", s.order)
	}
	client, err := status.NewClient(s.addr)
	if err != nil {
		return usageErrorf("%w", err)
	}
	defer client.Close()
	v := &top.View{Addr: s.addr, Order: order, Interval: s.interval}
	v.Style.UTF8 = utf8Locale()
	in, inOK := stdin.(*os.File)
	out, outOK := stdout.(*os.File)
	drawn := inOK && outOK && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd()))
	dumb := os.Getenv("TERM") == "dumb" || os.Getenv("TERM") == ""
	if s.once || !drawn || dumb {
		return printTop(ctx, client, v, stdout, s.once || !drawn)
	}
	v.Style.Color = os.Getenv("NO_COLOR") == ""
	return drawTop(ctx, client, v, in, out)
}

// utf8Locale reports whether the terminal is to get UTF-8, as setlocale(3) decides.
func utf8Locale() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

func askTop(ctx context.Context, c *status.Client) (*status.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, topTimeout)
	defer cancel()
	s, err := c.Snapshot(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v", topTimeout)
	}
	return s, err
}

// plainWidth is that of tables that nobody's terminal has the width of.
const plainWidth = 100

// printTop prints a table after each interval, or one.
func printTop(ctx context.Context, c *status.Client, v *top.View, w io.Writer, once bool) error {
	width := plainWidth
	if f, ok := w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			width = n
		}
	}
	for {
		s, err := askTop(ctx, c)
		if ctx.Err() != nil {
			return nil
		}
		v.Update(s, err, time.Now())
		if err != nil && once {
			return fmt.Errorf("top: %s: %w", v.Addr, err)
		}
		if v.Was != nil || err != nil {
			if _, err := fmt.Fprintln(w, strings.Join(v.Frame(width, 0), "\n")); err != nil {
				return err
			}
			if once {
				return nil
			}
			fmt.Fprintln(w)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(v.Interval):
		}
	}
}

// Orders to the terminal. The other screen leaves what was there as it was.
const (
	topEnter = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J"
	topLeave = "\x1b[?25h\x1b[?1049l"
	topHome  = "\x1b[H"
	lineEnds = "\x1b[K"
	allEnds  = "\x1b[J"
)

// An answer of the status page.
type topAnswer struct {
	s   *status.Snapshot
	err error
}

// drawTop draws until it is told to end.
func drawTop(ctx context.Context, c *status.Client, v *top.View, in, out *os.File) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// These end it, too, and the terminal is to be as it was.
	ending := make(chan os.Signal, 1)
	signal.Notify(ending, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(ending)
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	defer signal.Stop(resized)

	enter := func() (func() error, error) {
		was, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return nil, fmt.Errorf("top: set up the terminal: %w", err)
		}
		_, _ = io.WriteString(out, topEnter)
		return func() error {
			_, _ = io.WriteString(out, topLeave)
			return term.Restore(int(in.Fd()), was)
		}, nil
	}
	leave, err := enter()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave()) }()

	answers, asks := make(chan topAnswer), make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			s, err := askTop(ctx, c)
			select {
			case answers <- topAnswer{s, err}:
			case <-ctx.Done():
				return
			}
			select {
			case <-time.After(v.Interval):
			case <-asks:
			case <-ctx.Done():
			}
		}
	}()
	keys := make(chan string)
	go func() {
		defer close(keys)
		b := make([]byte, 64)
		for {
			n, err := in.Read(b)
			if n > 0 {
				select {
				case keys <- string(b[:n]):
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	second := time.NewTicker(time.Second) // for how long there was no answer
	defer second.Stop()
	for {
		width, height, err := term.GetSize(int(out.Fd()))
		if err != nil || width < 1 || height < 1 {
			width, height = 80, 24
		}
		v.Now = time.Now()
		frame := v.Frame(width, height)
		if _, err := io.WriteString(out, topHome+strings.Join(frame, lineEnds+"\r\n")+lineEnds+allEnds); err != nil {
			return nil // nobody sees it any more
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ending:
			return nil
		case <-resized:
		case <-second.C:
		case a := <-answers:
			v.Update(a.s, a.err, time.Now())
		case k, ok := <-keys:
			if !ok {
				return nil
			}
			switch {
			case strings.ContainsAny(k, "qQ\x03\x04"):
				return nil
			case k == "\x1a": // Ctrl-Z
				if err := leave(); err != nil {
					return err
				}
				if err := stopOurselves(); err != nil {
					return err
				}
				if leave, err = enter(); err != nil {
					leave = func() error { return nil }
					return err
				}
			default:
				if v.Key(k, height) {
					select {
					case asks <- struct{}{}:
					default:
					}
				}
			}
		}
	}
}

// stopOurselves stops the process group, as a terminal's Ctrl-Z does, and returns when it goes on.
func stopOurselves() error {
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, unix.SIGCONT)
	defer signal.Stop(continued)
	if err := unix.Kill(0, unix.SIGTSTP); err != nil {
		return fmt.Errorf("top: stop: %w", err)
	}
	select {
	case <-continued:
	case <-time.After(time.Second): // the group is orphaned: nobody could have continued it
	}
	return nil
}
