// Package offline is the door by which package enginetest has engines without threads, epoll or
// a kernel: their calls are handled by whoever makes them. Package engine sets its functions; the engines
// and sources are *engine.Engine and *engine.Source, the options engine.Config and engine.SourceOptions.
package offline

import "github.com/unknot/unknot/engine/notify"

var (
	// New returns an engine that never runs.
	New func(config any) (engine any, err error)
	// Add adds a listener to it.
	Add func(engine any, l *notify.Listener, options any) (source any, err error)
	// Serve has a notification that was received handled on the calling goroutine, as an inline receive thread would.
	Serve func(source any, n notify.Notif)
	// Expire answers for all handlers and detached requests that have not answered yet, as late ones, and says for how many.
	Expire func(engine any) int
)
