//go:build cgo

#ifndef UNKNOT_EARLY_H
#define UNKNOT_EARLY_H

#include <stdint.h>

// What the supervisor of `run` may need at the same time.
#define UNKNOT_THREADS 14
#define UNKNOT_FILES 16
#define UNKNOT_ADDRESS_SPACE (1500ull << 20)
#define UNKNOT_DATA (256ull << 20)

#define UNKNOT_MAX_FILES 1024

// engine.DefaultInterrupt
#define UNKNOT_ENGINE_SIGNAL 40

// A signal as the handler puts it into the pipe.
struct unknot_signal {
	int32_t sig, code, pid, pad;
	uint64_t value;
};

// The pipe; -1 if there is none.
extern int unknot_signal_pipe[2];

// unknot_take_signals installs the handler for the signals that cannot stay
// blocked. Before that the Go runtime's own would act.
void unknot_take_signals(void);

// Bit n-1: signal n is blocked in all threads, for run to read. 0: not run.
extern uint64_t unknot_run_blocked;

// Descriptors above 2 that this process was started with.
extern int unknot_inherited_files[UNKNOT_MAX_FILES];
extern int unknot_inherited_count;

// unknot_die ends this process by a signal, without a core file.
int unknot_die(int sig);

// unknot_stop_begin sends this thread a signal that stops the process, blocked;
// unknot_stop_end has it act, until the process is continued, or takes it back.
// A SIGCONT between the two takes it back as well.
void unknot_stop_begin(int sig);
void unknot_stop_end(int sig, int stop);

#endif
