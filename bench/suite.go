package bench

// Suite are the storms that `go test -bench .` and `unknot bench` without flags
// both run, with the same names: each engine on each of its paths. Here none is
// confined (that is `unknot bench --confine off`), since confining needs cgo.
func Suite() (specs []Spec) {
	for _, targets := range []int{1, 16} {
		for _, e := range engines {
			if e.many {
				continue
			}
			for _, p := range e.paths {
				specs = append(specs, Spec{Engine: e.name, Path: p, Targets: targets, Workers: 2, Queue: 64})
			}
		}
	}
	return specs
}
