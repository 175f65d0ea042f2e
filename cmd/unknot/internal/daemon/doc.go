// Package daemon is the life of `unknot serve`: how it starts, takes another policy, is replaced, stops and survives.
//
//	runtimes → socket → engine/agent → store (a copy of the listener) → engine
//
// What a container must not lose is its listener: with the last copy gone all its trapped calls fail with ENOSYS, for
// good. So a copy lies elsewhere before the first call is received: with the service manager (systemd's descriptor store),
// or with a keeper, which is a process of this program that does nothing else:
//
//	unknot serve (keeper) ── link ──► unknot serve (daemon)
//	  holds copies                      receives and answers
//	  starts the next daemon ◄── dies ──┘
//
// The process that the user starts is the keeper, not the daemon, so that a container's first process, or the one that a
// service manager watches, outlives a crash. A keeper that is killed takes nothing with it: the daemon goes on.
//
// A later daemon first answers what its predecessor had received and not answered ([agent.Recover]), then receives. What
// nobody received waits in the kernel meanwhile.
package daemon
