package record

// For the tests of package replay, which imports this one.
var (
	Open     = open
	Closed   = closed
	Recorded = recorded
)
