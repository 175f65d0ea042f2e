package filter

import (
	"cmp"
	"slices"
	"strings"
)

// nearest returns at most three names that a person who typed name may have
// meant: a few edits away, or with it as a whole part of them.
func nearest(name string, known []string) []string {
	type candidate struct {
		name string
		cost int
	}
	var found []candidate
	for _, k := range known {
		cost := editDistance(name, k)
		if len(name) >= 4 && strings.Contains(k, name) {
			cost = 1
		}
		if cost <= max(1, len(name)/3) {
			found = append(found, candidate{k, cost})
		}
	}
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	var names []string
	for _, c := range found[:min(3, len(found))] {
		names = append(names, c.name)
	}
	return names
}

// editDistance counts the letters to insert, delete, replace or swap with their
// neighbour to get from a to b.
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := last[j]
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
