package compare

// Confirm holds the rows that seem regressed against fresh rounds of the same
// commands, which were compared on their own. A row stays regressed if they
// agree: they too estimate a change beyond θ, and are worse than no change at
// all with confidence 1-alpha. Else it is inconclusive. After a session with a budget,
// whose rounds are many and the fresh ones few, it stays unless they contradict: they
// estimate no change for the worse, or show one within θ. Confirm decides anew on the
// whole.
func (r *Report) Confirm(fresh *Report, rounds int) {
	c := &Confirmation{Old: fresh.Old, New: fresh.New, Rounds: rounds}
	for _, row := range r.Regressed() {
		c.Suspects++
		for _, f := range fresh.Rows {
			if f.key() == row.key() {
				row.fresh = f
			}
		}
		if ok, why := row.fresh.agrees(r.Alpha, r.Budget > 0); ok {
			c.Confirmed++
		} else {
			row.Verdict, row.Reason = Inconclusive, "seemed regressed, and fresh rounds did not confirm it: "+why
		}
	}
	r.Confirmation = c
	r.conclude()
}

// agrees says whether a row of fresh rounds supports a regression.
func (r *Row) agrees(alpha float64, few bool) (bool, string) {
	switch {
	case r == nil:
		return false, "it is missing there"
	case r.Verdict == Regressed:
		return true, "" // a stronger claim
	case r.worse == nil:
		return false, r.Reason
	}
	change := float64(r.Change)
	if r.Better == "higher" {
		change = 1/(1+change) - 1
	}
	switch {
	case few && change > 0 && !(float64(r.PWithin) <= alpha):
		return true, ""
	case few || !(change > float64(r.Theta)):
		return false, "they say " + signed(float64(r.Change))
	case !(*r.worse <= alpha):
		return false, "they show no change"
	}
	return true, ""
}
