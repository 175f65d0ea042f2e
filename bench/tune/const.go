package tune

import "time"

// The simulated scheduler; see cpus.
const (
	wakeGrain = 0
	timeSlice = 3 * time.Millisecond
)
