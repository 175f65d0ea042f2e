package compare

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Marks are the comment lines by which an interleaved session says which run
// belongs to which round. They are comments and not keys because a key that
// differs from round to round would make benchstat put each round into a table
// of its own.
//
//	# interleaved start session=9f2c… seed=42 rounds=50 side=old
//	# interleaved round=1 slot=2
//	# interleaved end session=9f2c…
//
// A round may stand there several times: once for each benchmark, where these run one
// by one. A session with a budget (budget=2m0s in its start) says when it judged:
//
//	# interleaved look rounds=7 spent=0.2013
//
// A file with a start and no end was cut off.
const markPrefix = "# interleaved "

// machinePrefix starts a comment that says one thing about the machine whose
// fingerprint is in the key "machine".
const machinePrefix = "# machine "

// A round names one round of one session.
type round struct {
	session string
	number  int
}

// marks are what the comments of one file say.
type marks struct {
	lines               []int // where each of rounds begins
	rounds              []round
	slots               []int
	disturbed, repeated int
	planned             map[string]int // session → rounds, 0 where it had a budget
	budget              map[string]time.Duration
	looks               map[string][]look
	seed                map[string]uint64
	details             map[string]string // of the machine
	failed              string            // a line that says that a benchmark failed
}

// parseMarks reads the comments of a file. Comments that merely look like marks
// are not.
func parseMarks(label string, data []byte) (*marks, error) {
	m := &marks{budget: map[string]time.Duration{}, looks: map[string][]look{}, planned: map[string]int{}, seed: map[string]uint64{}, details: map[string]string{}}
	session, open := "", ""
	sc := bufio.NewScanner(bytes.NewReader(data))
	n := 0
	for ; sc.Scan(); n++ {
		line := sc.Text()
		switch {
		case strings.HasPrefix(line, machinePrefix):
			if k, v, ok := strings.Cut(line[len(machinePrefix):], ": "); ok {
				m.details[k] = v
			}
		case line == "FAIL", strings.HasPrefix(line, "FAIL\t"), strings.HasPrefix(line, "FAIL "), strings.HasPrefix(line, "--- FAIL"), strings.HasPrefix(line, "panic: "):
			if m.failed == "" {
				m.failed = fmt.Sprintf("%s:%d: %s", label, n+1, line)
			}
		case strings.HasPrefix(line, markPrefix):
			words := strings.Fields(line[len(markPrefix):])
			if len(words) == 0 {
				continue
			}
			kv := map[string]string{}
			for _, w := range words {
				k, v, _ := strings.Cut(w, "=")
				kv[k] = v
			}
			number := func(k string) int {
				v, err := strconv.Atoi(kv[k])
				if err != nil || v < 1 {
					return 0
				}
				return v
			}
			switch {
			case words[0] == "start":
				if open != "" {
					return nil, fmt.Errorf("%s:%d: interleaved session %s does not end: the file is truncated", label, n+1, open)
				}
				session = kv["session"]
				open = session
				m.planned[session] = number("rounds")
				if d, err := time.ParseDuration(kv["budget"]); err == nil && d > 0 {
					m.budget[session] = d
				}
				m.seed[session], _ = strconv.ParseUint(kv["seed"], 10, 64)
			case words[0] == "end":
				session, open = "", ""
				m.lines, m.rounds, m.slots = append(m.lines, n+1), append(m.rounds, round{}), append(m.slots, 0)
			case words[0] == "look" && session != "":
				spent, err := strconv.ParseFloat(kv["spent"], 64)
				if err != nil || !(spent > 0 && spent <= 1) {
					return nil, fmt.Errorf("%s:%d: a look with spent=%s: want more than 0 and at most 1: the file was changed", label, n+1, kv["spent"])
				}
				m.looks[session] = append(m.looks[session], look{number("rounds"), spent})
			case number("round") > 0 && session != "":
				m.lines = append(m.lines, n+1)
				m.rounds = append(m.rounds, round{session, number("round")})
				m.slots = append(m.slots, number("slot"))
				for word, count := range map[string]*int{"disturbed": &m.disturbed, "repeated": &m.repeated} {
					if _, ok := kv[word]; ok {
						*count++
					}
				}
			}
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", label, n+1, err)
	}
	if open != "" {
		return nil, fmt.Errorf("%s: interleaved session %s does not end: the file is truncated", label, open)
	}
	return m, nil
}

// at returns the round that a line belongs to; the zero round for none.
func (m *marks) at(line int) round {
	i := sort.SearchInts(m.lines, line+1) - 1
	if i < 0 {
		return round{}
	}
	return m.rounds[i]
}

func markStart(w io.Writer, session string, seed uint64, rounds int, budget time.Duration, side string) error {
	planned := fmt.Sprintf("rounds=%d", rounds)
	if budget > 0 {
		planned = fmt.Sprintf("budget=%v", budget)
	}
	_, err := fmt.Fprintf(w, "%sstart session=%s seed=%d %s side=%s\n", markPrefix, session, seed, planned, side)
	return err
}

func markRound(w io.Writer, number, slot int, note string) error {
	_, err := fmt.Fprintf(w, "%sround=%d slot=%d%s\n", markPrefix, number, slot, note)
	return err
}

func markLook(w io.Writer, l look) error {
	_, err := fmt.Fprintf(w, "%slook rounds=%d spent=%.4f\n", markPrefix, l.rounds, l.spent)
	return err
}

func markEnd(w io.Writer, session string) error {
	_, err := fmt.Fprintf(w, "%send session=%s\n", markPrefix, session)
	return err
}
