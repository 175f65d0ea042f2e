// Package bench measures engines under synthetic storms and writes what it
// measured in Go benchmark format.
//
// The engines stand side by side behind [Supervisor], so that one run compares
// them in rotation on the same machine in the same minutes:
//
//	unknot  this project: path inline, or path queue through the ring
//	chan    what people write today: libseccomp's NotifReceive, a buffered
//	        channel, goroutines
//	seed    the design unknot descends from: blocking receive, bounded queue,
//	        one drop and one EINTR at a time
//	bare    the least a Go thread can do: epoll, RECV, SEND; the floor. With many
//	        listeners, a thread for each; as bare-pool a thread for each CPU
//
// Every worker of a queue path asks ID_VALID when it starts on a request, which
// is how bench/trace sees the dispatch.
package bench
