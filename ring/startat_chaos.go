//go:build ringchaos

package ring

// StartAt moves an unused ring to another first position, for package linear: positions wrap around.
func StartAt[H Handle](r *Ring[H], pos uint64) { r.startAt(pos) }
