#!/usr/bin/env bash
# Installs a release on the running local cluster (e2e/cluster.sh up), as a stranger would:
#
#   scripts/release/on_cluster.sh DIR
#
# DIR was made by build.sh. The kubelet pulls the image by its digest from a registry on loopback, which runs in the
# network of the cluster; so install.yaml is rendered again with the address of that registry. Everything is removed at the end.
set -euo pipefail
# shellcheck source=scripts/release/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

[[ $# -eq 1 ]] || die "usage: scripts/release/on_cluster.sh DIR"
[[ -r $ENV_FILE ]] || die "no cluster runs" "start one: e2e/cluster.sh up"
# shellcheck source=/dev/null
. "$ENV_FILE"
# shellcheck disable=SC2153 # from the file just read
[[ $CLUSTER_KIND == local && $CLUSTER_NODE == yes ]] ||
  die "this cluster has no node that reaches a registry on loopback (kind: $CLUSTER_KIND)"
read -ra inside <<<"$CLUSTER_EXEC"
build_programs crane helm4
WORK=$(mktemp -d)
# shellcheck disable=SC2317 # called by the trap
finish() {
  local code=$?
  [[ ! -e $WORK/files/install.yaml ]] || "$KUBECTL" delete --ignore-not-found -f "$WORK/files/install.yaml" >/dev/null || code=1
  "$KUBECTL" delete --ignore-not-found namespace release-dry-run >/dev/null || code=1
  stop_registry
  rm -rf "$WORK"
  exit "$code"
}
trap finish EXIT

cp -r "$1/image" "$1/digests" "$WORK"
mkdir "$WORK/files"
digest=$(sed -n 's/^image .* \(sha256:[0-9a-f]*\)$/\1/p' "$WORK/digests")
start_registry "$WORK/registry.log" "${inside[@]}"
export REGISTRY=$REGISTRY_ADDRESS/zen-lead
scripts=$RELEASE_HERE
"$scripts/manifests.sh" "$WORK" "$digest"
"${inside[@]}" "$scripts/publish.sh" "$WORK" unsigned

"$KUBECTL" apply -f "$WORK/files/install.yaml" >/dev/null
"$KUBECTL" -n zen-lead-system rollout status deployment/zen-lead --timeout=180s >/dev/null
running=$("$KUBECTL" -n zen-lead-system get pods -o jsonpath='{.items[*].status.containerStatuses[0].imageID}')
[[ $running == "$REGISTRY/zen-lead@$digest $REGISTRY/zen-lead@$digest" ]] || die "the pods run $running"
say "ok: two pods run $digest, pulled by the kubelet"

"$KUBECTL" create namespace release-dry-run >/dev/null
"$KUBECTL" -n release-dry-run create service clusterip web --tcp=80 >/dev/null
"$KUBECTL" -n release-dry-run annotate service web zen-lead.io/enabled=true >/dev/null
wait_for 30 "$KUBECTL" -n release-dry-run get service web-leader || die "no leader Service appears"
if "$KUBECTL" -n release-dry-run annotate service web zen-lead.io/stick=true >"$WORK/out" 2>&1; then
  die "a misspelt annotation is not refused"
fi
grep -q 'did you mean "zen-lead.io/sticky"' "$WORK/out" || die "the refusal names no key" "$(cat "$WORK/out")"
say "ok: a leader Service appears, a misspelt annotation is refused"
