#!/usr/bin/env bash
# Installs, keeps and removes zen-lead as Argo CD and Flux do, by their own libraries (e2e/tools/argocd, e2e/tools/flux),
# on the running cluster: no drift after the caBundle is written, after a rotation of the CA and after a switch of a
# leader; everything is pruned on deletion, and the cluster is writable. Then the health check for Argo CD.
#
#   make gitops        or: e2e/test_gitops.sh    needs a cluster with the image (make cluster-up image)
#
# The controllers around these libraries do not run: they need a Git server and their own images.
set -euo pipefail
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
ROOT=$(dirname -- "$HERE")
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
# shellcheck source=lib/build.sh
. "$HERE/lib/build.sh"
# shellcheck source=lib/checks.sh
. "$HERE/lib/checks.sh"

[[ -r $ENV_FILE ]] || die "no cluster runs" "start one: make cluster-up image"
# shellcheck source=/dev/null
. "$ENV_FILE"
build_programs flux-apply argocd-engine

SYSTEM=zen-lead-system NS=gitops-test
WORK=$(mktemp -d)
FILE=$WORK/zen-lead.yaml

admin() { KUBECONFIG=$KUBECONFIG "$KUBECTL" "$@"; }
alice() { KUBECONFIG=$KUBECONFIG_USER "$KUBECTL" -n "$NS" "$@"; }
in_cluster() {
  program_path "$1"
  shift
  # shellcheck disable=SC2086 # a command with its arguments, or nothing
  KUBECONFIG=$KUBECONFIG $CLUSTER_EXEC "$PROGRAM_PATH" "$@"
}
argocd() { in_cluster argocd-engine "$@"; }
flux() { in_cluster flux-apply "$@"; }

clean_up() {
  admin delete namespace "$NS" --ignore-not-found --wait=false >/dev/null 2>&1 || true
  admin delete -k "$ROOT/deploy" --ignore-not-found --timeout=90s >/dev/null 2>&1 || true
  rm -rf "$WORK"
}
trap clean_up EXIT

ca_bundle() { admin get validatingwebhookconfiguration zen-lead -o jsonpath='{.webhooks[0].clientConfig.caBundle}'; }
has_ca_bundle() { [[ -n $(ca_bundle) ]]; }
bundle_differs() { [[ $(ca_bundle) != "$1" ]]; }
leader() { admin -n "$NS" get service web-leader -o jsonpath='{.metadata.annotations.zen-lead\.io/leader-pod-name}'; }
leader_differs() { [[ -n $(leader) && $(leader) != "$1" ]]; }
mistake_refused() {
  ! alice create --dry-run=server -f - <<<'{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bad",
    "annotations": {"zen-lead.io/enabled": "maybe"}}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}' \
    >"$WORK/refusal" 2>&1 && grep -q 'must be "true" or "false"' "$WORK/refusal"
}
annotated_can_be_written() {
  alice annotate --overwrite service web zen-lead.io/enabled=maybe && alice annotate --overwrite service web zen-lead.io/enabled=true
}

# Two pods of the demo app, and a Service with a leader.
app() {
  admin create namespace "$NS" >/dev/null
  admin -n "$NS" create deployment web --image="$DEMO_IMAGE" --replicas=2 --port=8080 --dry-run=client -o json |
    sed 's/"resources": {}/"imagePullPolicy": "Never", "resources": {}/' | admin -n "$NS" apply -f - >/dev/null
  admin -n "$NS" rollout status deployment/web --timeout=60s >/dev/null
  alice create -f - >/dev/null <<'YAML'
{apiVersion: v1, kind: Service, metadata: {name: web, annotations: {zen-lead.io/enabled: "true"}},
 spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}
YAML
}

# The objects of the file that still exist.
left() { admin get --ignore-not-found -o name -f "$FILE" 2>&1 | grep -v 'namespaces "zen-lead-system" not found' || true; }
nothing_left() {
  left >"$WORK/left"
  cat "$WORK/left"
  [[ ! -s $WORK/left ]]
}

# life NAME: one life of zen-lead, with the functions NAME_apply, NAME_drift and NAME_delete.
life() {
  local name=$1 before
  holds "$name: the manifests are applied" "${name}_apply"
  holds "$name: zen-lead runs" admin -n "$SYSTEM" rollout status deployment/zen-lead --timeout=90s
  eventually 60 "$name: the webhook configurations have a caBundle" has_ca_bundle
  app
  eventually 60 "$name: a mistake is refused" mistake_refused
  eventually 60 "$name: a pod leads" leader_differs ""
  holds "$name: no drift after the caBundle was written" "${name}_drift"
  before=$(ca_bundle)
  admin -n "$SYSTEM" annotate secret zen-lead-ca --overwrite zen-lead.io/rotate-ca="test $RANDOM" >/dev/null
  eventually 90 "$name: the CA is rotated" bundle_differs "$before"
  holds "$name: no drift after the rotation" "${name}_drift"
  before=$(leader)
  admin -n "$NS" delete pod "$before" --wait=false >/dev/null
  eventually 60 "$name: another pod leads" leader_differs "$before"
  holds "$name: no drift after the switch" "${name}_drift"
  # The check can fail: an admin changes what the manifests say.
  admin -n "$SYSTEM" scale deployment zen-lead --replicas=1 >/dev/null
  if "${name}_drift" >"$WORK/out" 2>&1; then fail "$name: a changed number of replicas is drift"; else pass "$name: a changed number of replicas is drift"; fi
  holds "$name: the next apply repairs it" "${name}_apply"
  holds "$name: no drift after that" "${name}_drift"
  holds "$name: everything is deleted" "${name}_delete"
  eventually 90 "$name: nothing is left" nothing_left
  eventually 30 "$name: annotated Services can be written" annotated_can_be_written
  admin delete namespace "$NS" --timeout=60s >/dev/null
}

argocd_apply() { argocd sync "$FILE"; }
argocd_drift() { argocd drift "$FILE"; }
argocd_delete() { argocd delete; }
flux_apply() { flux apply "$FILE"; }
flux_drift() { flux drift "$FILE"; }
flux_delete() { flux delete "$FILE"; }

# Why zen-lead's webhook configurations have no owner: Argo CD does not prune an object that has one. Both are taken out
# of the file; the validating one was given an owner before.
owner_is_left_behind() {
  local uid
  holds "argocd, an owner: the manifests are applied" argocd_apply
  uid=$(admin get namespace "$SYSTEM" -o jsonpath='{.metadata.uid}')
  admin patch validatingwebhookconfiguration zen-lead --type=merge -p \
    "{\"metadata\": {\"ownerReferences\": [{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"name\": \"$SYSTEM\", \"uid\": \"$uid\"}]}}" >/dev/null
  awk -v RS='---\n' '!/kind: (Validating|Mutating)WebhookConfiguration/ { printf "---\n%s", $0 }' "$FILE" >"$WORK/without.yaml"
  holds "argocd, an owner: the file without webhook configurations is applied" argocd sync "$WORK/without.yaml"
  left >"$WORK/out"
  if grep -q '^mutatingwebhookconfiguration' "$WORK/out"; then fail "argocd, an owner: the configuration without an owner is pruned"; else
    pass "argocd, an owner: the configuration without an owner is pruned"
  fi
  if grep -q '^validatingwebhookconfiguration' "$WORK/out"; then pass "argocd, an owner: the configuration with an owner is left"; else
    fail "argocd, an owner: the configuration with an owner is pruned too, so zen-lead's may have one again"
  fi
  holds "argocd, an owner: everything else is deleted" argocd_delete
  admin delete validatingwebhookconfiguration zen-lead --ignore-not-found >/dev/null
  eventually 90 "argocd, an owner: nothing is left" nothing_left
}

# health STATUS WHAT OBJECT
health() {
  printf '%s' "$3" >"$WORK/object.json"
  holds "$2 is $1" in_cluster argocd-engine health "$ROOT/deploy/argocd/health.lua" "$WORK/object.json"
  grep -q "^$1: " "$WORK/out" || fail "$2 is not $1"
}
condition() { printf '{"spec": {"type": "%s"}, "status": {"conditions": [{"type": "zen-lead.io/LeaderReady", "status": "%s", "reason": "%s", "message": "m"}], "loadBalancer": {}}}' "$@"; }

healths() {
  health Healthy "a plain Service" '{"spec": {"type": "ClusterIP"}, "status": {"loadBalancer": {}}}'
  health Progressing "a load balancer without an address" '{"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {}}}'
  health Healthy "a leader Service with a leader" "$(condition ClusterIP True LeaderElected)"
  health Degraded "a leader Service without a leader" "$(condition ClusterIP False NoReadyPods)"
  grep -q "NoReadyPods: m" "$WORK/out" || fail "the reason and the message are shown"
  health Degraded "a load balancer without a leader" "$(condition LoadBalancer False NoReadyPods)"
  health Progressing "a leader Service that is not decided yet" "$(condition ClusterIP Unknown Deciding)"
  health Progressing "a load balancer with a leader, without an address" "$(condition LoadBalancer True LeaderElected)"
}

clean_up
WORK=$(mktemp -d)
FILE=$WORK/zen-lead.yaml
admin kustomize "$ROOT/deploy" >"$FILE"
healths
life flux
life argocd
owner_is_left_behind
conclude
