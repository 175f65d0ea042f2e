#!/bin/sh
# Asks Go's vulnerability database about what the code of every module calls (govulncheck, pinned in scripts/go.mod):
#
#   scripts/vuln.sh          says so, and succeeds, where the database is out of reach
#   scripts/vuln.sh -must    fails there
#
# GOVULNDB names another database, which may be a folder (file:///...).
set -eu
cd "$(dirname "$0")/.."
said=$(mktemp)
trap 'rm -f "$said"' EXIT
unreachable() {
    echo "vuln: not checked: the database is out of reach: $(grep -h 'fetching vulnerabilities' "$said")" >&2
    [ "${1-}" != -must ] || exit 1
    exit 0
}
# One small package first: whether it can be asked at all is soon known.
for packages in ./internal/ellipsis work; do
    status=0
    go tool govulncheck -db "${GOVULNDB:-https://vuln.go.dev}" $packages >"$said" 2>&1 || status=$?
    [ $status = 0 ] || ! grep -q 'fetching vulnerabilities' "$said" || unreachable "${1-}"
done
cat "$said"
exit $status
