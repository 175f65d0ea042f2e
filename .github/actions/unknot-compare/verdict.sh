#!/usr/bin/env bash
# Turns the exit code of the comparison into that of the job. None is a failure.
set -euo pipefail
case "${EXIT:-}" in
0) ;;
1) echo "::error::a benchmark regressed"; exit 1 ;;
3)
    if [ "${FAIL_ON:-regressed}" = inconclusive ]; then
        echo "::error::the benchmarks are inconclusive"; exit 3
    fi
    echo "::warning::the benchmarks are inconclusive: this is not a pass" ;;
*) echo "::error::the benchmarks could not be compared"; exit 2 ;;
esac
