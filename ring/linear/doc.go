// Package linear checks that package ring is linearizable: goroutines write down what they did and saw, and
// porcupine looks for an order that explains all of it. It is a module of its own, so that the checker is no
// dependency of the ring's users, and has nothing to import: all of it is a test.
package linear
