// Package rules is the policy file of `unknot serve` and `unknot run --config`: which of a container's trapped system
// calls go on, fail, are written down or are answered with another file.
//
//	file → Parse → Policy → Router (an engine.Handler) ─→ answer
//	                              ↑            └────────→ Audit → JSON lines
//	               agent.State → Tag (of a listener)
//
// The first rule that matches answers. docs/policy.md has the grammar.
package rules
