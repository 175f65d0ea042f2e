package engine

// Move takes s to the receiver with that index.
func Move(e *Engine, s *Source, to int) bool { return e.move(s, e.receivers.all()[to]) }

// IsRetiring reports whether somebody is taking s out, or has.
func IsRetiring(s *Source) bool { return s.leaving.Load() }

// Unwanted reports whether somebody wants s closed whom another one came before.
func Unwanted(e *Engine, s *Source) bool {
	e.registry.mu.Lock()
	defer e.registry.mu.Unlock()
	return s.unwanted
}
