package trace

import "math"

// An Occupancy is the mean number in flight over a time, from looks at
// [Tracer.InFlight] at moments that do not follow the work. Little's law says that
// it equals the rate of calls times their mean time ([Report.Little]), which are
// counted elsewhere: if the two differ, calls were lost or counted twice. The zero
// Occupancy has not looked yet.
type Occupancy struct {
	looks   int
	sum     float64
	size    int       // looks in a batch
	batches []float64 // sums of full batches
	batch   float64   // of the batch that fills
	filled  int
}

// maxBatches bounds the memory: when there are so many, two and two become one.
const maxBatches = 64

// Look adds a look.
func (o *Occupancy) Look(inFlight int) {
	n := float64(inFlight)
	o.looks++
	o.sum += n
	o.size = max(1, o.size)
	o.batch += n
	if o.filled++; o.filled < o.size {
		return
	}
	o.batches = append(o.batches, o.batch)
	o.batch, o.filled = 0, 0
	if len(o.batches) == maxBatches {
		for i := range maxBatches / 2 {
			o.batches[i] = o.batches[2*i] + o.batches[2*i+1]
		}
		o.batches = o.batches[:maxBatches/2]
		o.size *= 2
	}
}

// Looks returns how many there were.
func (o *Occupancy) Looks() int { return o.looks }

// Mean returns the mean number in flight and its standard error, by batch means,
// since one look is like the next. Both are NaN before there are enough looks.
func (o *Occupancy) Mean() (mean, stderr float64) {
	n := float64(len(o.batches))
	if n < 8 {
		return math.NaN(), math.NaN()
	}
	mean = o.sum / float64(o.looks)
	var ss float64
	for _, b := range o.batches {
		d := b/float64(o.size) - mean
		ss += d * d
	}
	return mean, math.Sqrt(ss / (n - 1) / n)
}

// Little returns the mean number in flight by Little's law: the rate of the calls
// that ended times their mean time.
func (r *Report) Little() float64 {
	return float64(r.Answer.Sum+r.Drop.Sum+r.StaleTime.Nanoseconds()) / float64(r.Elapsed.Nanoseconds())
}

// Agrees reports whether the looks confirm a mean that Little's law says, within
// four standard errors, a twentieth, and what so many looks cannot see.
func (o *Occupancy) Agrees(little float64) bool {
	mean, stderr := o.Mean()
	return math.Abs(mean-little) <= 4*stderr+0.05*max(mean, little)+5/float64(o.looks)
}
