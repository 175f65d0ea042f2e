package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine"
)

// Stages runs one storm of s and follows each of its calls through all stages, for
// the kernel's tracepoints to say where its time goes. Every dispatch is made
// visible, which costs a system call in each. The warm-up counts.
func Stages(ctx context.Context, s Spec, d time.Duration) (*trace.Report, error) {
	tr, err := trace.Start(trace.Config{TGID: os.Getpid(), Stages: true})
	if err != nil {
		return nil, err
	}
	defer tr.Close()
	if !tr.Stages() {
		return nil, errors.New("trace: stages need a kernel with BTF (CONFIG_DEBUG_INFO_BTF)")
	}
	s.CheckAfter = engine.AlwaysCheck
	r, err := once(ctx, s, d, tr)
	if err != nil {
		return nil, err
	}
	if r.Lost > 0 {
		return nil, fmt.Errorf("%s: %d targets hung and were killed: their calls have no stages", s.Name(), r.Lost)
	}
	return tr.Report()
}
