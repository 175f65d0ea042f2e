package ring

import (
	"time"

	"github.com/unknot/unknot/internal/slowstop"
)

// pulse keeps a timer of the Go runtime running while wired threads sleep in futexes: one for
// the process, once a second. Package slowstop says what for.
var pulse = slowstop.NewHeart(time.Second)
