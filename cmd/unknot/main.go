// Command unknot supervises programs by seccomp user notifications, measures how
// fast it does so, and says what this kernel and user can do. See `unknot help`.
package main

import (
	"context"
	"os"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/launch"
)

func main() {
	storm.Main()  // a storm is this program run again
	launch.Init() // and so is, without cgo, what `run` turns into its command
	confineMain()

	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
