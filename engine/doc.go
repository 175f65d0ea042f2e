// Package engine supervises system calls: it receives the notifications of
// seccomp listeners, hands them to a handler, and answers them.
//
// A notification travels so:
//
//	target traps → receive thread (RECV) → ring → worker → handler → SEND
//
// An engine has one receiver for a lone listener, and one on each CPU in use for several
// ([Config.Receivers]): an OS thread of the engine's own, locked, pinned to a CPU (but see [AutoPlacement]), that
// receives by level-triggered epoll, or directly from an only busy listener. With
// [Config.Inline] it also runs the handler and answers; otherwise notifications
// wait for the receiver's workers, in a bounded ring for each listener. When a ring is full
// the oldest give way ([Config.Policy] has other choices). They are answered
// EINTR in batches, at a pace at which those who try again do no harm, so that
// fresh calls keep a bounded wait and nothing is ever lost: an unanswered call is
// a hung program.
//
// What [Config] leaves to the engine is planned by package engine/internal/placement, whose chart of
// states says what comes when: the workers' number and place, the receive thread's CPU, GOMAXPROCS
// ([Config.KeepProcs] has it left alone), and, if so asked, under many targets with short handlers
// the priority of who receives and answers ([Config.RaisePriority]). [Engine.Debug] shows the plan and why.
//
// The engine owns its listeners from [Engine.Add] on and closes each after the
// last answer on it. Whatever a handler does (panic, runtime.Goexit, no answer,
// two answers, an answer after its deadline), each notification gets exactly
// one answer, and what was odd is counted.
//
// # Traps
//
// A handler of an inline engine runs on a receive thread and must not block:
// nothing else of that receiver's is received meanwhile. With several listeners there are several receive
// threads, so handlers run concurrently, inline too.
//
// Continue is no security decision: the target may change its memory between
// your look and the kernel's.
//
// An EINTR answer is a real failure for programs that do not expect it, and an
// instant retry for those that loop on it. Size the ring so that drops stay rare.
//
// # Words
//
// One meaning each, in code, counters and logs:
//
//	receiver       a receive thread with its epoll instance, listeners, rings, workers and tallies
//	controller     the goroutine that asks placement for plans and applies them
//	plan           what a receiver's threads shall be like, and why
//	active, parked workers in use, and those that wait until they are
//	colocate       put a receive thread on a CPU of its targets, which may not run on its own
//	affinity       where targets may run: their CPU masks
//	concurrency    how many targets call, in bands: low, medium, high
//	linear counting  how their number is estimated, from a hashed bitmap
//	together, apart targets and a receive thread are brought to one CPU, or not
//	experiment     both ways in turn, arm after arm, until one is the verdict
//	busy           calls come in quick succession; a busy streak is many of them in a row
//	direct receive blocking RECV from an only listener, without epoll
//	hand-off batch calls that a receive thread takes before it lets its lone worker run
//	spread         a worker leaves a CPU that it shares with another one at work
//	time slice     how long a thread runs before it yields in the Go scheduler
//	pause          nothing is received from a listener until its ring has room again
//	timers         listeners with calls held or aging
//	interrupt      take a receive thread out of RECV; notify: wake it from epoll
//	barrier        wait until a receive thread has gone round its loop
//	reconcile      have the controller look
//	seat           a receive thread's claim to a CPU, which other processes see
//	detached       a request whose handler has returned without an answer, which its Pending gives
//	share          how many workers may be at one listener's calls at once; of its ring, the ration
//	tag            what the one who added a listener wants handlers to know of it
//	default answer what the engine answers in a handler's stead
//	Gone           (counter) RECV found the target gone
//	Expired        (counter) dropped, having waited longer than Config.MaxAge
//	DuplicateAnswers (counter) answers refused because there was one already
package engine
