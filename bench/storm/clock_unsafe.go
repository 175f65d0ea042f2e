package storm

import _ "unsafe" // for linkname

// nanotime is the runtime's monotonic clock. time.Since is no substitute: it
// looks at the stack's limit, and so yields to the scheduler (see hammer).
//
//go:linkname nanotime runtime.nanotime
func nanotime() int64
