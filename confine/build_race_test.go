//go:build cgo && race

package confine

const buildOf = "under race"
