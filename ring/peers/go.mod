module github.com/unknot/unknot/ring/peers

go 1.26.0

replace github.com/unknot/unknot => ../..

require (
	github.com/puzpuzpuz/xsync/v4 v4.5.0
	github.com/unknot/unknot v0.2.0
	golang.org/x/perf v0.0.0-20260908200009-22c9c6c9d4da
)

require github.com/aclements/go-moremath v0.0.0-20210112150236-f10218a38794
