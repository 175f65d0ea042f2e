package daemon

import "github.com/prometheus/client_golang/prometheus"

// collectors are what the status page shows of the daemon, beside the engine's.
func (d *daemon) collectors() []prometheus.Collector {
	var all []prometheus.Collector
	counter := func(name, help string, labels prometheus.Labels, value func() float64) {
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "unknot", Name: name, Help: help, ConstLabels: labels}, value))
	}
	gauge := func(name, help string, value func() float64) {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "unknot", Name: name, Help: help}, value))
	}
	counter("policy_reloads_total", "Policies read since the start, by what became of them.", prometheus.Labels{"outcome": "taken"}, func() float64 { return float64(d.reloads.Load()) })
	counter("policy_reloads_total", "Policies read since the start, by what became of them.", prometheus.Labels{"outcome": "refused"}, func() float64 { return float64(d.refused.Load()) })
	gauge("policy_rules", "Rules of the policy in use.", func() float64 { return float64(d.router.Policy().Rules()) })
	counter("policy_unread_total", "Calls whose arguments could not be read.", nil, func() float64 { return float64(d.router.Unread()) })
	counter("listeners_unkept_total", "Listeners of which no copy is kept for the case of a crash.", nil, func() float64 { return float64(d.unkept.Load()) })
	counter("listeners_inherited_total", "Listeners taken from a daemon before.", nil, func() float64 { return float64(d.inheritedN.Load()) })
	counter("calls_interrupted_total", "Calls that a daemon before had received and not answered, and that were answered EINTR.", nil, func() float64 { return float64(d.interrupted.Load()) })
	if a := d.audit; a != nil {
		const help = "Audit records, by what became of them."
		counter("audit_records_total", help, prometheus.Labels{"outcome": "written"}, func() float64 { return float64(a.Counts().Written) })
		counter("audit_records_total", help, prometheus.Labels{"outcome": "dropped"}, func() float64 { return float64(a.Counts().Dropped) })
		gauge("audit_records_waiting", "Audit records that are not written yet.", func() float64 { return float64(a.Counts().Waiting) })
		counter("audit_errors_total", "Writes of audit records that failed.", nil, func() float64 { return float64(a.Counts().Errors) })
	}
	return all
}
