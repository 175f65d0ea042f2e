// Package agent takes the listeners of containers from their runtime: the seccomp agent protocol of the OCI
// runtime specification, which runc, crun and youki speak.
//
// A runtime that starts a container, or a process in one, with linux.seccomp.listenerPath connects to that
// socket and sends one JSON value, a [State], together with the listener (SCM_RIGHTS):
//
//	runtime → socket → Agent → Config.Serve → engine.Engine.Add
//
// [Listen] makes the socket, or takes one that was activated, and [Agent.Run] serves it. Each connection is
// independent, has a deadline, and is one of a bounded number; where there are too many, the one that has been
// waiting longest gives way, because a runtime sends within milliseconds. Whatever a client sends, each
// descriptor that came from it is either the listener that Serve got or closed.
//
// LXC speaks another protocol, in which it keeps the listener and sends each call: see [LXC].
//
// # Traps
//
// Runtimes keep their end open, and wait for the container: the state is complete where its JSON value ends,
// and never at the end of the connection.
//
// Each `exec` in a container is another filter, with another connection and listener, under the same container id.
// Tell listeners apart by themselves, not by id. Some runtimes send process id 0 with an exec; the
// notification's own is right.
//
// When the last copy of a listener is closed, all calls of its targets fail with ENOSYS, and there is no way back.
// To replace an agent that runs, hand its listeners over ([Link.Give], [Link.Take]). To survive one that crashes, have
// another process keep copies (a [Keeper]); a successor then answers what its predecessor held ([Recover]).
package agent
