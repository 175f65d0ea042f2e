#!/usr/bin/env bash
# Writes the report to a comment of the pull request, one for each action of a
# workflow, which later runs edit. A comment of anybody else is left alone, whatever
# it says, because its author could edit the report. A pull request from a fork has
# no right to comment; that fails nothing, since the table is in the job's summary too.
set -euo pipefail
# Each action's mark is its own: @uri maps no two of them to one, nor to an end of the comment.
mark="<!-- unknot-compare: $(jq -rn --arg mark "$MARK" '$mark | @uri') -->"
# A comment can show no file of the runner: the plot of the pairs is in the artifact.
report=$(head -c 60000 "$REPORT")
if [ -n "${ARTIFACT:-}" ]; then
    report=$(printf %s "$report" | sed "s|^- \\[plot of the pairs\\](<.*>)|- [plot of the pairs, results and profiles]($ARTIFACT)|")
fi
body=$(printf '%s\n%s' "$mark" "$report")
fail() { echo "::warning::cannot comment on the pull request: $1"; exit 0; }
# shellcheck disable=SC2016 # these are GraphQL's variables
comments='query($owner: String!, $name: String!, $pull: Int!, $endCursor: String) {
  repository(owner: $owner, name: $name) { pullRequest(number: $pull) {
    comments(first: 100, after: $endCursor) { nodes { id viewerDidAuthor body } pageInfo { hasNextPage endCursor } } } } }'
# shellcheck disable=SC2016
edit='mutation($id: ID!, $body: String!) { updateIssueComment(input: {id: $id, body: $body}) { clientMutationId } }'
id=$(gh api graphql --paginate -f query="$comments" -f owner="${REPO%%/*}" -f name="${REPO#*/}" -F pull="$PULL" |
    jq -r --arg mark "$mark" '.data.repository.pullRequest.comments.nodes[] | select(.viewerDidAuthor and (.body | startswith($mark))) | .id' |
    head -n 1) || fail "listing comments failed"
if [ -n "$id" ]; then
    gh api graphql -f query="$edit" -f id="$id" -f body="$body" --silent || fail "editing failed"
else
    gh api "repos/$REPO/issues/$PULL/comments" -f body="$body" --silent || fail "no right to? (permissions: pull-requests: write)"
fi
