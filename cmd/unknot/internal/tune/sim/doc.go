// Package sim is a discrete-event simulation of the engine ([Simulate]). It is pure: what it says depends on its
// arguments alone, and it runs nothing.
//
// The overload policy in it is not a model: it is policy.Machine itself, asked at the points at which
// the engine asks it, so that holding, pacing and resting happen as they do there.
// What is modelled is around it: targets that call, think, and call again at once
// when they are told EINTR; a receive thread that takes calls one by one; workers;
// and CPUs that all of these share. Handlers that compute compete for the CPUs
// with the targets and the receive thread, and with each other once there are more
// of them than CPUs; handlers that sleep do not. It is that which bounds what is
// served on a small machine, not the number of workers.
//
// Closed forms ([MMcK], [MMcN]) are the oracles of its tests.
package sim
