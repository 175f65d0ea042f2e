//go:build !cgo

package confine

const buildOf = "without cgo"
