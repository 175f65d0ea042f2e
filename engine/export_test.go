package engine

// IsRetiring reports whether somebody is taking s out, or has.
func IsRetiring(s *Source) bool { return s.retiring.Load() }

// Unwanted reports whether somebody wants s closed whom another one came before.
func Unwanted(e *Engine, s *Source) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return s.unwanted
}
