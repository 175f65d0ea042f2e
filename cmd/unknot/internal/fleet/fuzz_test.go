package fleet

import (
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/unknot/unknot/cmd/unknot/internal/tune"
)

// An unplugged client asks a handler without a network between.
type unplugged struct{ http.Handler }

func (u unplugged) URL(ep string, _ map[string]string) *url.URL {
	return &url.URL{Scheme: "http", Host: "x", Path: ep}
}

func (u unplugged) Do(_ context.Context, r *http.Request) (*http.Response, []byte, error) {
	w := httptest.NewRecorder()
	u.ServeHTTP(w, r)
	return w.Result(), w.Body.Bytes(), nil
}

// FuzzAnswers: whatever a Prometheus answers to one of the questions, the nodes have figures that can be calculated with.
func FuzzAnswers(f *testing.F) {
	for i := range good {
		for _, rows := range []string{"[]", is("NaN"), is("+Inf"), is("-1"), is("1e300"), matrix, good[i][1], histogram("NaN", "1", "-1", "2", "+Inf", "1e18"), `[{"metric":{},"values":[[1,"NaN"],[2,"-1"]]}]`, "{"} {
			f.Add(i, rows)
		}
	}
	f.Fuzz(func(t *testing.T, i int, rows string) {
		if i < 0 || i >= len(good) {
			return
		}
		q := &Query{URL: "http://x", Range: time.Minute, End: time.Unix(1.7e9, 0), By: "instance"}
		c := &client{q, v1.NewAPI(unplugged{good.with(good[i][0], rows)}), &Answer{From: q.End.Add(-q.Range), To: q.End}}
		if err := c.read(t.Context()); err != nil {
			return
		}
		for _, n := range c.a.Nodes {
			number := func(what string, x float64) {
				if !(x >= 0) || math.IsInf(x, 0) {
					t.Errorf("%s of %s is %v", what, n.Name, x)
				}
			}
			number("calls", n.Calls)
			number("drops", n.Drop)
			for _, r := range n.Load.Arrivals.Calls.(tune.Rates) {
				number("a rate", r)
			}
			mean, cv := n.Load.Service.Moments()
			number("service", mean)
			number("its variation", cv)
			if n.Workers < 1 || n.Load.Service.Times.Count == 0 || n.Wait == nil {
				t.Errorf("%+v", n)
			}
		}
	})
}
