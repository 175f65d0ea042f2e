package main

import (
	"bufio"
	"errors"
	"os"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/confine"
	"golang.org/x/term"
)

func newConfineCmd() *cobra.Command {
	format, level := confine.Table.String(), confine.Private.String()
	c := &cobra.Command{
		Use:   "confine [flags]",
		Short: "print the filter that confines the receive thread, without loading it",
		Long: `confine writes what the thread that receives notifications may do to standard output,
for review, for other tools, or to be kept and compared:

  table  the rules with their reasons, in Markdown
  pfc    libseccomp's pseudo filter code
  bpf    the program: struct sock_filter after struct sock_filter, in this machine's byte order

It loads nothing and asks the kernel nothing. Descriptors, cookies and the process id are
made up, since they are a thread's own: the listener is 1001, the thread's epoll instance
1002, its eventfd 1003, the Go runtime's two 1004 and 1005, the process 1000, the cookies
0xc00c1e0000000001 to 3. So the same build with the same libseccomp prints the same.`,
		Example: `  unknot confine --level shared
  unknot confine --format bpf >receive.bpf`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := confine.ParseFormat(format)
			if err != nil {
				return usageErrorf("--format: %w", err)
			}
			l, err := confine.ParseLevel(level)
			if err != nil {
				return usageErrorf("--level: %w", err)
			}
			out := cmd.OutOrStdout()
			if file, ok := out.(*os.File); ok && f == confine.BPF && term.IsTerminal(int(file.Fd())) {
				return usageErrorf("--format bpf is no text for a terminal: redirect it to a file")
			}
			w := bufio.NewWriter(out)
			return errors.Join(confine.Export(w, f, confine.Config{Level: l}), w.Flush())
		},
	}
	c.Flags().StringVar(&format, "format", format, "table, pfc or bpf")
	c.Flags().StringVar(&level, "level", level, "private or shared")
	return c
}
