//go:build race

package engine_test

// raceBuild: the race detector's instrumentation has some values on the heap that are not there without.
const raceBuild = true
