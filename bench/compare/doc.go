// Package compare makes a verdict of two sets of Go benchmark results, one that a
// build can be made to fail by. It knows nothing of what was measured.
//
//	results → rows (unit of a benchmark) → test against θ → Holm → verdict → exit code
//
// [Compare] reads two inputs, [Interleaver] measures them, [Calibrate] finds the
// noise floor, [Report.Confirm] holds regressions against fresh rounds,
// [Interleaver.Profile] asks pprof where those come from, and [Trends] looks at many
// comparisons. What is read may be other than plain text: clean.go has what.
//
// # The question
//
// Not "does new differ from old, and by more than 5%?" but "is new worse than
// old·(1+θ)?": the threshold lies inside the test. So a difference that is real
// and small never fails a build, however many runs there are. The other question,
// "is new not worse than old·(1+θ)?", is a test too, and only its success is a
// pass. Between the two lies inconclusive, which is also where noise leads: what
// could not have been seen is not called absent. The interval that is printed,
// each end of which has confidence 1-alpha, is the same thing for the eye:
// regressed lies beyond θ wholly, pass lies within.
//
// θ is the threshold, or 1.5 noise floors if that is more. The floor is the
// largest change that comparisons of a command with itself have estimated on the
// machine; it holds what no test inside one comparison can see. Where it is above
// the threshold, "not worse by more than θ" is no answer to what was asked, and
// the verdict is inconclusive.
//
// Holm's procedure keeps the chance of any false regression among all gated rows
// at alpha, and the more rows are gated the less each can show; see DefaultGate.
// A pass of the whole needs a pass of each row, which needs no correction.
//
// # The tests, and why these
//
// Plain files: Mann-Whitney's U on old scaled by 1+θ. Interleaved sessions:
// Wilcoxon's signed ranks of the ratios within the rounds. Both assume no
// distribution and are exact for small samples, ties included.
//
// On a virtual machine most noise is slow: a speed that changes every few seconds,
// drift, slow minutes. Within a round both sides have nearly the same of it. What
// TestPowerAndFalseAlarms finds, with θ = 5% and 50 runs a side, under noise by
// which the ratio of one round varies with a standard deviation of 10.6% (a small
// virtual machine measured 7.9% on a bad day: 200 ms of `unknot bench --engine
// unknot --path inline --targets 1` a run):
//
//	                          new = old              new = old + 10%
//	                          pass     regressed     pass     regressed
//	signed ranks, confirmed   98.8%     0.0%          0.0%    96.0%
//	signed ranks              98.8%     0.0%          0.0%    97.2%
//	U on the same runs        70.5%     0.0%          0.0%    64.2%
//	U, all of A, then all B   54.5%    21.2%         17.0%    56.8%
//	4 times the noise         30.8%     0.0%          1.2%    16.2%
//
// With new at the threshold itself (old + 5%), the signed ranks say regressed in
// 5.2% and pass in 4.2% of all cases, as they should: alpha is 5%.
//
// Many short rounds beat few long ones. Where that 7.9% was measured, the median
// of four repetitions in each run left it at 7.7%: the noise outlasts the run.
//
// # With a budget
//
// [Interleaver.Measure] adds rounds until each row has a verdict or the time is spent,
// by group-sequential tests: sequential.go says which and by whom. The choice was
// between those and tests that are valid at any time (e-processes). The latter need no
// plan of looks, and pay for that with power; a budget is a plan of looks, and noisy rows
// need the power. The files keep the looks, so that [Compare] judges as Measure did.
// TestErrorRatesWithABudget simulates the rates.
//
// Pairs that the host disturbed more than is usual are measured again, once. Only signs
// of the host count (the CPU time of other processes, and steal), which are the same
// whatever the pair's values are: to choose among pairs by their values would choose
// the result.
//
// # Confirmation
//
// What seems regressed is measured again in fresh rounds, judged on their own:
// the estimate must again lie beyond θ, and the rounds alone must show new worse
// than old. To ask them for the whole proof again would cost power (0.972² instead
// of 0.972 in the table) and prove nothing new; they are there for what is gone when
// one looks again.
//
// After a session with a budget, whose rounds are many, the fresh ones are few, and need
// only not contradict.
//
// # Traps of the format and its libraries
//
// Tests keep us out of each.
//
//  1. benchfmt.Writer leaves out keys that are not marked as file keys. We write
//     keys as text.
//  2. A name without values is no result, and readers refuse the line.
//  3. Only hyphenated ns and MB are scaled: p99-dispatch-ns, not p99_ns.
//  4. Only Go's own units are known to be better one way. Others are declared by
//     a line "Unit NAME better=lower", or shown and not gated.
//  5. assume=exact is for deterministic counts. Where such values vary, the
//     verdict is inconclusive.
//  6. For exact units benchmath returns P = 0 and alpha = 0, so P < alpha never
//     holds. We compare exact values as numbers, and say !(p > alpha).
//  7. A baseline of 0 has no ratio: 0 and 0 pass, anything above 0 is worse by
//     more than any θ. And benchmath.NewSample sorts the caller's slice, which
//     would undo the rounds.
//  8. Few runs can show nothing: 4 a side at least, 5 rounds, and more under Holm.
//     Fewer are inconclusive.
//  9. Any key that differs between two files splits the tables, and the comparison
//     is silently gone. Such keys are ignored and named, and the rounds stand in
//     comments.
//  10. benchstat exits with 0 on errors. Here whatever is not a whole set of
//     results is an error, with a code of its own.
//  11. Names carry keys (Storm/path=queue-2). The name is the row, and a pattern
//     for -bench is made from it level by level.
package compare
