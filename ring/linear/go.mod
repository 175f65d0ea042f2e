module github.com/unknot/unknot/ring/linear

go 1.26.0

replace github.com/unknot/unknot => ../..

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/unknot/unknot v0.2.0
)
