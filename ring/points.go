package ring

// A point names a window in the algorithm: what lies between the last access
// and the next. See at.
type point int

const (
	pointPop     point = iota // a consumer has read entries and not yet claimed them
	pointEvict                // a producer has chosen entries to evict and not yet claimed them
	pointPublish              // a producer has written entries and not yet published them
	pointNotify               // a producer has published and not yet looked for sleepers
	pointPark                 // a consumer has announced itself and not yet looked again
	pointSleep                // a consumer has looked again and does not sleep yet
	pointLocked               // a consumer of a Queue holds its mutex
	pointAwait                // a producer has announced that it waits for room and not yet looked again
)
