// Package tune finds the queue size for a load: how long calls wait and how many
// are dropped at each capacity, predicted by simulation and then measured.
//
// It drives: [Tune] storms the engine, fits package sim's model to what was measured
// ([FitModel]), chooses by simulation and storms what it chose. [TuneFleet] only simulates.
package tune

import "github.com/unknot/unknot/cmd/unknot/internal/tune/sim"

// What is simulated and what is stormed is said in the same terms.
type (
	Load     = sim.Load
	Arrivals = sim.Arrivals
	Service  = sim.Service
	Setting  = sim.Setting
	Model    = sim.Model
	Run      = sim.Run
	Outcome  = sim.Outcome
)
