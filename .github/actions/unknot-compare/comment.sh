#!/usr/bin/env bash
# Writes the report to a comment of the pull request, one for each action of a
# workflow, which later runs edit. A pull request from a fork has no right to
# comment; that fails nothing, since the table is in the job's summary too.
set -euo pipefail
mark="<!-- unknot-compare: $(printf %s "$MARK" | tr -d '<>-') -->"
body=$(printf '%s\n%s' "$mark" "$(head -c 60000 "$REPORT")")
fail() { echo "::warning::cannot comment on the pull request: $1"; exit 0; }
id=$(gh api --paginate "repos/$REPO/issues/$PULL/comments" |
    jq -r --arg mark "$mark" '.[] | select(.body | startswith($mark)) | .id' | head -n 1) || fail "listing comments failed"
if [ -n "$id" ]; then
    gh api --method PATCH "repos/$REPO/issues/comments/$id" -f body="$body" --silent || fail "editing failed"
else
    gh api "repos/$REPO/issues/$PULL/comments" -f body="$body" --silent || fail "no right to? (permissions: pull-requests: write)"
fi
