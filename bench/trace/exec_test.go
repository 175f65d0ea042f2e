package trace

import (
	"fmt"
	"os"
	"testing"
)

const marks = 4096 // MARKS of stages.h

// A thread that is not its process's first takes the first one's number when it calls
// exec. Its call is in the stages all the same, and its row is not left behind.
func TestExecOfAnotherThread(t *testing.T) {
	needTracing(t)
	const execs = 24 // each of which a busy machine takes a third of a second for
	for _, c := range []struct {
		name      string
		sample    int
		displaced bool
	}{{"rows", 1, false}, {"displaced", 1, true}, {"sampled", 2, false}, {"sampled and displaced", 2, true}} {
		t.Run(c.name, func(t *testing.T) {
			tr := newTracer(t, Config{TGID: os.Getpid(), Explain: true, Sample: c.sample}, btfVariant)
			rows := tr.coll.Maps[kernelMapRows]
			for k := range rows.MaxEntries() {
				if c.displaced {
					if err := rows.Put(k, kernelThread{Owner: 1}); err != nil {
						t.Fatal(err)
					}
				}
			}
			before := orphans(t, tr)
			g, err := startRole(fmt.Sprintf("execs %d", execs), true)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(g.stop)
			s := &supervisor{goOn: true}
			supervise(t, g, s)
			r := report(t, tr)
			if c.sample == 1 {
				if err := compareCounts(r, s); err != nil {
					t.Error(err)
				}
			}
			if n := s.answered.Load(); n < 2*execs+1 {
				t.Errorf("%d calls answered of %d execs: this test shows nothing", n, execs)
			}
			n := r.Stages[StageCycle].Count
			// Answers that came before their target slept are the machine's, and many where it is emulated.
			if n+r.Unjoined+r.Broken != r.Answered || n+r.unwoken < r.Answered*9/10 {
				t.Errorf("%d calls in stages (%d unjoined, of which %d unwoken, %d broken) of %d answered", n, r.Unjoined, r.unwoken, r.Broken, r.Answered)
			}
			g.stop()
			// Others on the machine may just have ended.
			if after := orphans(t, tr); after > before+execs/2 {
				t.Errorf("%d rows of threads that are no more before, %d after %d execs", before, after, execs)
			}
			// So far only the supervisor's thread, and perhaps others on the machine.
			var runners [marks]uint32
			if err := tr.coll.Variables[kernelVarRunners].Get(&runners); err != nil {
				t.Fatal(err)
			}
			for k, n := range runners {
				if n > execs/2 {
					t.Errorf("mark %d: %d threads", k, int32(n))
				}
			}
		})
	}
}
