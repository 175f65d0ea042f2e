// Command page makes results/README.md and its figures from what was measured.
//
//	page RESULTS
//
// RESULTS has a directory for each kind of machine. Of each, the newest
// DATE-COMMIT.txt is shown, with the files of the same name beside it:
//
//	DATE-COMMIT.txt           results in Go benchmark format, in steps
//	DATE-COMMIT.latency.hgrm  percentiles of step latency (unknot bench --hdr)
//	DATE-COMMIT.stages.json   stages of step stages (unknot bench --stages)
//
// scripts/results.sh measures all three. A step begins with the comments
//
//	# step: NAME
//	# command: unknot bench ...
//
// and goes on with what that command printed. Nothing is measured here, and no
// number on the page is anywhere but in these files. A file from which a point is
// missing, or whose points are void, gives an error and no page.
package main
