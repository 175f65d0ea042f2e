//go:build cgo && !race

package confine

const buildOf = "with cgo"
