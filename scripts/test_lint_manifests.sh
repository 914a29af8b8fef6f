#!/usr/bin/env bash
# Shows that each check of scripts/lint_manifests.sh can fail: it breaks a copy of a file, and the check has to
# report that very fault.
#
#   scripts/test_lint_manifests.sh
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
FAILED=0 PASSED=0 SKIPPED=0

# broken CHECK TEXT FILE SED: with FILE changed by the sed expression, CHECK fails and its output contains TEXT.
broken() {
  local check=$1 text=$2 file=$3 expression=$4 tree=$WORK/tree status=0
  rm -rf "$tree"
  mkdir "$tree"
  # No other kustomizations, which would take time to render.
  cp -R --parents deploy/kustomization.yaml deploy/manifests .github Dockerfile "$tree"
  [[ -e $tree/$file ]] || cp -R --parents "$(dirname "$file")" "$tree"
  sed -i.before -e "$expression" "$tree/$file"
  if cmp -s "$tree/$file" "$tree/$file.before"; then
    FAILED=$((FAILED + 1))
    say "FAIL  $check: $expression changes nothing in $file"
    return
  fi
  rm "$tree/$file.before"
  scripts/lint_manifests.sh --in "$tree" "$check" >"$WORK/out" 2>&1 || status=$?
  if [[ $status -ne 0 ]] && grep -qF -- "$text" "$WORK/out"; then
    PASSED=$((PASSED + 1))
  elif [[ $status -eq 0 ]] && grep -q '^skipped: ' "$WORK/out"; then
    SKIPPED=$((SKIPPED + 1))
  else
    FAILED=$((FAILED + 1))
    say "FAIL  $check did not report \"$text\" after $expression in $file; it ended with $status and said:"
    sed 's/^/      /' "$WORK/out"
  fi
}

deployment=deploy/manifests/50-deployment.yaml
broken schemas "'minAvailble' not allowed" $deployment 's/minAvailable/minAvailble/'
broken schemas "got string, want integer" $deployment 's/replicas: 2/replicas: two/'
broken schemas "could not find schema for PodDisruptionBudgets" $deployment 's/^kind: PodDisruptionBudget$/&s/'
# A field that came with Kubernetes 1.35: the oldest version does not know it.
broken schemas "not valid in Kubernetes 1.33" $deployment 's/^      serviceAccountName: .*/&\n      workloadRef: {name: a, podGroup: b}/'
broken schemas "'mountPth' not allowed" deploy/components/metrics-token/kustomization.yaml 's/mountPath/mountPth/'
broken schemas "'readOnli' not allowed" certs/external/kustomization.yaml 's/readOnly/readOnli/'
broken score "The pod has a container with a writable root filesystem" $deployment 's/readOnlyRootFilesystem: true/readOnlyRootFilesystem: false/'
broken score "Memory limit is not set" $deployment '/memory: 512Mi/d'
broken workflows 'property "oss" is not defined' .github/workflows/ci.yaml 's/runner\.os/runner.oss/'
# shellcheck disable=SC2016 # the workflow has to contain $1
broken workflows "SC2086" .github/workflows/security.yaml 's/run: make deny/run: make $1/'
broken security "unpinned-uses" .github/workflows/ci.yaml 's/checkout@[0-9a-f]*/checkout@v6/'
broken security "excessive-permissions" .github/workflows/ci.yaml 's/contents: read/contents: write/; s/^permissions: {}/permissions: write-all/'
broken security "artipacked" .github/workflows/ci.yaml '/persist-credentials/d'
broken security "dependabot-cooldown" .github/dependabot.yml '/cooldown/d'
broken dockerfile "DL3006" Dockerfile 's/^FROM scratch$/FROM debian/'
broken dockerfile "Dockerfile builds with Rust 1.0.0" Dockerfile 's/^FROM rust:[0-9.]*/FROM rust:1.0.0/'

say "broken copies: $PASSED reported"
[[ $SKIPPED -eq 0 ]] || say "skipped: $SKIPPED of them, with the programs named above"
[[ $FAILED -eq 0 ]] || exit 1
