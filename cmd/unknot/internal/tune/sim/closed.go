package sim

import "math"

// Closed forms of queues with exponential service times. The simulation is held
// against them, and they give the first guess.

// A Queue is what a closed form says of a queue in its steady state.
type Queue struct {
	Loss       float64 // part of the calls that find it full
	Throughput float64 // served calls per unit of time
	Wait       float64 // mean wait of a call that is served
	Busy       float64 // workers at work, on average
	Queued     float64 // calls that wait, on average
}

// MMcK is an open loop of Poisson arrivals of rate lambda, c workers of rate mu
// each and room for k calls that wait: M/M/c/(c+k).
func MMcK(lambda, mu float64, c, k int) Queue {
	p := stationary(c+k, func(n int) float64 { return lambda / (mu * float64(min(n+1, c))) })
	q := of(p, c)
	q.Loss = p[c+k]
	q.Throughput = lambda * (1 - q.Loss)
	q.Wait = q.Queued / q.Throughput
	return q
}

// MMcN is a closed loop of n callers that think for 1/nu on average and c
// workers of rate mu each, with room for all: M/M/c//N, the machine repairman.
func MMcN(nu, mu float64, c, n int) Queue {
	p := stationary(n, func(i int) float64 { return float64(n-i) * nu / (mu * float64(min(i+1, c))) })
	q := of(p, c)
	q.Throughput = mu * q.Busy
	q.Wait = q.Queued / q.Throughput
	return q
}

// stationary returns the probabilities of the states 0 to n of a birth-death
// process, where ratio(i) is the birth rate in i over the death rate in i+1.
func stationary(n int, ratio func(int) float64) []float64 {
	// In logarithms, because factorials of hundreds overflow.
	p := make([]float64, n+1)
	most := 0.
	for i := range n {
		p[i+1] = p[i] + math.Log(ratio(i))
		most = max(most, p[i+1])
	}
	sum := 0.
	for i := range p {
		p[i] = math.Exp(p[i] - most)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

func of(p []float64, c int) (q Queue) {
	for n, x := range p {
		q.Busy += x * float64(min(n, c))
		q.Queued += x * float64(max(n-c, 0))
	}
	return q
}

// Knee is the number of threads of a closed loop at which c workers have no idle
// time left: with fewer, a thread more is a call more per second; beyond, it only
// lengthens the queue. Service and think are means in the same unit.
func Knee(c int, service, think float64) float64 { return float64(c) * (think + service) / service }

// DeadlineBound is the largest capacity whose last place is served within a wait
// of budget: K ≤ c·D/S + c − 1.
func DeadlineBound(c int, service, budget float64) int {
	return int(math.Floor(float64(c)*budget/service)) + c - 1
}

// BurstBound is the least capacity that takes a burst without a drop: K ≥ (peak −
// c/S)·length. Peak is in calls per ns when the others are in ns.
func BurstBound(c int, service, peak, length float64) int {
	return int(math.Ceil(max((peak-float64(c)/service)*length, 0)))
}
