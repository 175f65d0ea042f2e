module github.com/unknot/unknot/bench

go 1.26.0

replace github.com/unknot/unknot => ..

require (
	github.com/aclements/go-moremath v0.0.0-20210112150236-f10218a38794
	github.com/cilium/ebpf v0.22.0
	github.com/seccomp/libseccomp-golang v0.11.1
	github.com/unknot/unknot v0.2.0
	golang.org/x/perf v0.0.0-20260908200009-22c9c6c9d4da
	golang.org/x/sys v0.49.0
)
