package engine

// Move takes s to the receiver with that index.
func Move(e *Engine, s *Source, to int) bool { return e.move(s, e.receivers.all()[to]) }
