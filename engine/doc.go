// Package engine supervises system calls: it receives the notifications of
// seccomp listeners, hands them to a handler, and answers them.
//
// A notification travels so:
//
//	target traps → receive thread (RECV) → ring → worker → handler → SEND
//
// One OS thread of the engine's own receives: locked, pinned to a CPU (but see [AutoPlacement]), by
// level-triggered epoll, or by blocking RECV from a lone busy listener. With
// [Config.Inline] it also runs the handler and answers; otherwise notifications
// wait for the workers, in a bounded ring for each listener. When a ring is full
// the oldest give way ([Config.Policy] has other choices). They are answered
// EINTR in batches, at a pace at which those who try again do no harm, so that
// fresh calls keep a bounded wait and nothing is ever lost: an unanswered call is
// a hung program.
//
// What [Config] leaves to the engine follows the load: the wake-up mode of each
// listener, the receive thread's CPU and lulls, the workers' number and place, batches and pace of drops, GOMAXPROCS
// ([Config.KeepProcs] has it left alone), and, if so asked, under many targets with short handlers
// the priority of who receives and answers ([Config.RaisePriority]).
//
// The engine owns its listeners from [Engine.Add] on and closes each after the
// last answer on it. Whatever a handler does (panic, runtime.Goexit, no answer,
// two answers, an answer after its deadline), each notification gets exactly
// one answer, and what was odd is counted. A [Request] that was kept after its
// handler returned is spent: it reaches no other call.
//
// # Traps
//
// A handler of an inline engine runs on the receive thread and must not block:
// nothing else is received meanwhile.
//
// Continue is no security decision: the target may change its memory between
// your look and the kernel's.
//
// An EINTR answer is a real failure for programs that do not expect it, and an
// instant retry for those that loop on it. Size the ring so that drops stay rare.
package engine
