package top

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/cmd/unknot/internal/status"
)

// FuzzSnapshots: whatever a status page answers, twice, what is drawn fits the screen and has no orders to the terminal.
func FuzzSnapshots(f *testing.F) {
	text := func(s *status.Snapshot) []byte {
		b, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	a, b := text(snapshot(10, source(1, "web", 1000), source(2, "\x1b[2J", 500))), text(snapshot(12, source(1, "web", 3000), source(3, "db", 10)))
	f.Add(a, b, 80, 24)
	f.Add(b, a, 20, 3)
	f.Add([]byte(`{"sources":[{"wait":{"counts":{"0":18446744073709551615,"7":18446744073709551615},"sum":-1,"max":-1}}],"calls":[{}],"receivers":[{"cpuTime":-1}]}`), []byte("{}"), 200, 0)
	f.Fuzz(func(t *testing.T, was, is []byte, width, height int) {
		if width < 0 || width > 500 || height < 0 || height > 200 {
			return
		}
		v := View{Addr: "x", Style: Style{UTF8: true}}
		for i, text := range [][]byte{was, is} {
			s := new(status.Snapshot)
			if json.Unmarshal(text, s) != nil {
				return
			}
			v.Update(s, nil, began.Add(time.Duration(i)*time.Second))
		}
		for range int(orders) {
			lines := v.Frame(width, height)
			if height > 0 && len(lines) > height {
				t.Fatalf("%d lines of %d", len(lines), height)
			}
			for _, l := range lines {
				if strings.ContainsFunc(l, func(r rune) bool { return r != 'µ' && (r < ' ' || r > '~') }) || width > 0 && length(l) > width {
					t.Fatalf("%d columns: %q", width, l)
				}
			}
			v.Order = v.Order.Next()
		}
	})
}
