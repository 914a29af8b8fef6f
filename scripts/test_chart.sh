#!/usr/bin/env bash
# Tests the chart without a cluster: Helm 3 and Helm 4 render the same, unknown and wrong values are refused with the
# place of the mistake, another namespace and service account are used everywhere, and the cases in
# deploy/chart/tests hold.
#
#   scripts/test_chart.sh
#
# e2e/helm.rs installs it.
set -euo pipefail
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=e2e/lib/common.sh
. "$HERE/../e2e/lib/common.sh"
# shellcheck source=e2e/lib/build.sh
. "$HERE/../e2e/lib/build.sh"
# shellcheck source=e2e/lib/checks.sh
. "$HERE/../e2e/lib/checks.sh"
# shellcheck source=scripts/common.sh
. "$HERE/common.sh"
cd "$ROOT"

CHART=deploy/chart
ALL="monitoring.serviceMonitor.enabled=true,monitoring.rules.enabled=true,monitoring.dashboard.enabled=true"
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# helm VERSION ARGUMENT...
helm() {
  program_path "helm$1"
  shift
  HELM_CONFIG_HOME=$WORK HELM_CACHE_HOME=$WORK HELM_DATA_HOME=$WORK "$PROGRAM_PATH" "$@"
}
template() { helm "$1" template zen-lead "$CHART" --namespace routing "${@:2}"; }

# refused TEXT SETTING: Helm 3 and Helm 4 refuse the value and name it.
refused() {
  local version
  for version in 3 4; do
    if template "$version" --set "$2" >"$WORK/out" 2>&1; then
      fail "Helm $version takes $2"
    elif grep -qF -- "$1" "$WORK/out"; then
      pass "Helm $version refuses $2"
    else
      fail "Helm $version refuses $2, but without: $1"
    fi
  done
}

build_programs helm3 helm4 helm-unittest

for version in 3 4; do
  holds "helm lint, Helm $version" helm "$version" lint "$CHART"
  # They sort kinds that they do not know, and place blank lines, differently.
  template "$version" --set "$ALL" | python3 -c 'import sys
documents = sys.stdin.read().split("\n---\n")
print("\n---\n".join(sorted(d.removeprefix("---\n").strip() for d in documents)))' >"$WORK/helm$version"
done
holds "Helm 3 and Helm 4 render the same" diff -u "$WORK/helm3" "$WORK/helm4"

refused "replica" replica=3
refused "replicas" replicas=0
refused "replicas" replicas=two
refused "image" image.name=zen-lead
refused "digest" image.digest=sha256:1234
refused "failurePolicy" webhook.failurePolicy=ignore
refused "enabled" webhook.enabled=maybe
refused "timeoutSeconds" webhook.timeoutSeconds=60
refused "tokensecret" metrics.tokensecret=x
refused "podLabels" podLabels.round=1
refused "apiServers" networkPolicy.apiServers=192.0.2.1

# The names that the manifests have for namespace, account and user are nowhere left.
template 4 --set "$ALL,serviceAccount.name=leaders" >"$WORK/other"
if grep -nE 'zen-lead-system|serviceaccount:[a-z-]+:zen-lead\b|serviceAccount\("[a-z-]+", "zen-lead"\)|serviceAccountName: zen-lead' \
  "$WORK/other" >"$WORK/out"; then
  fail "another namespace and service account: these lines have the usual ones"
elif [[ $(grep -c 'serviceaccount:routing:leaders' "$WORK/other") -ge 8 ]]; then
  pass "another namespace and service account are used everywhere"
else
  fail "another service account: it is in too few places"
fi

program_path helm-unittest
holds "deploy/chart/tests" "$PROGRAM_PATH" "$CHART"
grep '^Tests: ' "$WORK/out" || true
conclude
