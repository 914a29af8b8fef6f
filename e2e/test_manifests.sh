#!/usr/bin/env bash
# Tests the manifests in deploy/ on the real API server of the running cluster: which
# changes others may make to leader Services and slices, and the refusals they get;
# which writes pass while zen-lead is down; the rights of zen-lead, and what its account
# is refused beyond them; and uninstalling.
#
#   e2e/test_manifests.sh      needs a running cluster (e2e/cluster.sh up)
#
# zen-lead itself does not run here; the test impersonates its service account. Other
# tests check the answers of the webhook.
set -euo pipefail
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
ROOT=$(dirname -- "$HERE")

[[ -r $ROOT/target/cluster/env ]] || { echo "no cluster runs; start one: e2e/cluster.sh up" >&2; exit 1; }
# shellcheck source=/dev/null
. "$ROOT/target/cluster/env"

MANIFESTS=$ROOT/deploy/manifests
WITHOUT_WEBHOOK=$ROOT/deploy/components/without-webhook/settings.yaml
NS=manifests-test
WORK=$(mktemp -d)

admin() { KUBECONFIG=$KUBECONFIG "$KUBECTL" "$@"; }
alice() { KUBECONFIG=$KUBECONFIG_USER "$KUBECTL" "$@"; }
account() { admin --as="system:serviceaccount:zen-lead-system:$1" --as-group=system:serviceaccounts "${@:2}"; }
# kubectl reads an object before it writes it, zen-lead does not: the group allows that (see set_up).
zen_lead() { account zen-lead --as-group=manifests-test "$@"; }
break_glass() { admin --as=alice --as-group=zen-lead:break-glass --as-group=system:authenticated "$@"; }

# shellcheck source=e2e/lib/checks.sh
. "$HERE/lib/checks.sh"
# shellcheck source=e2e/lib/own_account.sh
. "$HERE/lib/own_account.sh"
# shellcheck source=e2e/lib/components.sh
. "$HERE/lib/components.sh"

clean_up() {
  admin delete --ignore-not-found --wait=false namespace "$NS" zen-lead-system >/dev/null 2>&1 || true
  admin delete --ignore-not-found -f "$MANIFESTS/60-webhooks.yaml" -f "$MANIFESTS/70-protection.yaml" \
    -f "$MANIFESTS/75-own-account.yaml" -f "$MANIFESTS/10-rbac.yaml" -f "$WITHOUT_WEBHOOK" >/dev/null 2>&1 || true
  admin delete --ignore-not-found clusterrole/manifests-test clusterrolebinding/manifests-test >/dev/null 2>&1 || true
  rm -rf "$WORK"
}
trap clean_up EXIT

# allowed WHAT COMMAND...: a case of access, so a failure is a refusal.
allowed() { holds "$@"; }

# refused WHAT TEXT COMMAND...: the refusal has to contain TEXT.
refused() {
  local what=$1 text=$2
  shift 2
  if "$@" >"$WORK/out" 2>&1; then
    fail "$what: was allowed"
  elif grep -qF -e "$text" "$WORK/out"; then
    pass "$what"
  else
    fail "$what: refused, but without the text: $text"
  fi
}

absent() { [[ -z $(admin -n "$NS" get --ignore-not-found -o name "$@") ]]; }

set_up() {
  clean_up
  mkdir -p "$WORK"
  eventually 60 "no namespace of an earlier run is left" \
    sh -c "! '$KUBECTL' get namespace $NS && ! '$KUBECTL' get namespace zen-lead-system"
  admin apply -f "$MANIFESTS/00-namespace.yaml" -f "$MANIFESTS/10-rbac.yaml" -f "$MANIFESTS/70-protection.yaml" \
    -f "$MANIFESTS/75-own-account.yaml" >/dev/null
  admin create namespace "$NS" >/dev/null
  admin create clusterrole manifests-test --verb=get --resource=services,services/status >/dev/null
  admin create clusterrolebinding manifests-test --clusterrole=manifests-test --group=manifests-test >/dev/null
  # The API server takes a moment to see a new policy; this label alone is enough for it to refuse.
  eventually 30 "the policies are in force" \
    sh -c "! '$KUBECTL' -n $NS create --dry-run=server -f - <<'YAML'
{apiVersion: v1, kind: Service, metadata: {name: probe, labels: {zen-lead.io/source-service: x}}, spec: {ports: [{port: 80}]}}
YAML"
  eventually 30 "the policy on slices is in force" \
    sh -c "! '$KUBECTL' -n $NS create --dry-run=server -f - <<'YAML'
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: probe, labels: {endpointslice.kubernetes.io/managed-by: zen-lead}}, addressType: IPv4, endpoints: []}
YAML"
  own_account_in_force
}

source_service() {
  cat <<YAML
apiVersion: v1
kind: Service
metadata: {name: $1}
spec: {selector: {app: $1}, ports: [{name: http, port: 80}]}
YAML
}

# leader_service SOURCE UID
leader_service() {
  cat <<YAML
apiVersion: v1
kind: Service
metadata:
  name: $1-leader
  labels: {app.kubernetes.io/managed-by: zen-lead, zen-lead.io/source-service: $1}
  annotations: {zen-lead.io/decision-version: "1"}
  ownerReferences: [{apiVersion: v1, kind: Service, name: $1, uid: $2, controller: true}]
spec: {ports: [{name: http, port: 80}]}
YAML
}

# slice SOURCE UID-OF-LEADER
slice() {
  cat <<YAML
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: $1-leader-zen-lead-ipv4
  labels:
    kubernetes.io/service-name: $1-leader
    endpointslice.kubernetes.io/managed-by: zen-lead
  annotations: {zen-lead.io/leader-epoch: "5"}
  ownerReferences: [{apiVersion: v1, kind: Service, name: $1-leader, uid: $2, controller: true}]
addressType: IPv4
endpoints: [{addresses: [10.244.0.9], conditions: {ready: true, serving: true, terminating: false}}]
ports: [{name: http, port: 8080, protocol: TCP}]
YAML
}

uid() { admin -n "$NS" get "$1" "$2" -o jsonpath='{.metadata.uid}'; }

# made SOURCE: creates a source, its leader Service and its slice, as zen-lead creates them.
made() {
  source_service "$1" | alice -n "$NS" create -f - >/dev/null
  leader_service "$1" "$(uid service "$1")" >"$WORK/leader.yaml"
  allowed "zen-lead creates the leader Service of $1" zen_lead -n "$NS" create -f "$WORK/leader.yaml"
  slice "$1" "$(uid service "$1-leader")" >"$WORK/slice.yaml"
  allowed "zen-lead creates the slice of $1" zen_lead -n "$NS" create -f "$WORK/slice.yaml"
}

S=web-leader L=web-leader-zen-lead-ipv4
patch_service() { "$1" -n "$NS" patch service "$S" --type=merge -p "$2" "${@:3}"; }
patch_slice() { "$1" -n "$NS" patch endpointslice "$L" --type=merge -p "$2" "${@:3}"; }

leader_services() {
  refused "alice cannot point a leader Service elsewhere" \
    "spec.selector of a leader Service may not be changed: zen-lead keeps it as the source Service has it. Change the Service web instead" \
    patch_service alice '{"spec":{"selector":{"app":"other"}}}'
  refused "alice cannot change its ports" "spec.ports of a leader Service may not be changed" \
    patch_service alice '{"spec":{"ports":[{"name":"http","port":81}]}}'
  refused "alice cannot change its type" "spec.type" patch_service alice '{"spec":{"type":"NodePort"}}'
  refused "alice cannot make it an ExternalName" "spec.type, spec.externalName" \
    patch_service alice '{"spec":{"type":"ExternalName","externalName":"example.com"}}'
  refused "alice cannot change its IP families" "spec.ipFamilies, spec.ipFamilyPolicy of a leader Service may not be changed" \
    patch_service alice '{"spec":{"ipFamilyPolicy":"PreferDualStack","ipFamilies":["IPv4","IPv6"]}}'
  refused "one message names two changes" "spec.selector, spec.ports of a leader" \
    patch_service alice '{"spec":{"selector":{"app":"x"},"ports":[{"name":"http","port":81}]}}'
  refused "alice cannot set a status key" "zen-lead.io/current-leader may not be set, changed or removed here" \
    patch_service alice '{"metadata":{"annotations":{"zen-lead.io/current-leader":"me"}}}'
  refused "alice cannot change a status key" "Settings belong on the Service web;" \
    patch_service alice '{"metadata":{"annotations":{"zen-lead.io/decision-version":"9"}}}'
  refused "alice cannot remove a status key" "zen-lead.io/decision-version may not be" \
    patch_service alice '{"metadata":{"annotations":{"zen-lead.io/decision-version":null}}}'
  refused "a status key cannot be set through the status subresource" "zen-lead.io/current-leader may not be" \
    patch_service admin '{"metadata":{"annotations":{"zen-lead.io/current-leader":"me"}}}' --subresource=status
  refused "alice cannot remove the label of a leader Service" "zen-lead.io/source-service may not be" \
    patch_service alice '{"metadata":{"labels":{"zen-lead.io/source-service":null}}}'
  refused "alice cannot change the label of a leader Service" "zen-lead.io/source-service may not be" \
    patch_service alice '{"metadata":{"labels":{"zen-lead.io/source-service":"other"}}}'
  refused "alice cannot change the managed-by label of a leader Service" \
    "label app.kubernetes.io/managed-by of a leader Service may not be changed: zen-lead made it for the Service web" \
    alice -n "$NS" label service "$S" app.kubernetes.io/managed-by=Helm --overwrite
  refused "alice cannot set the label on her own Service" "To get a leader Service, annotate the source" \
    alice -n "$NS" label service web zen-lead.io/source-service=web
  refused "alice cannot create a leader Service" "only zen-lead creates Services with the label zen-lead.io/source-service. To get a leader Service, annotate the source" \
    alice -n "$NS" create -f "$WORK/fake.yaml"
  refused "the admin gets the same refusal" "spec.ports of a leader Service may not be changed" \
    patch_service admin '{"spec":{"ports":[{"name":"http","port":81}]}}'

  allowed "alice may set other annotations" patch_service alice '{"metadata":{"annotations":{"example.com/note":"x"}}}'
  allowed "alice may set other labels" patch_service alice '{"metadata":{"labels":{"team":"x"}}}'
  allowed "alice may set finalizers" patch_service alice '{"metadata":{"finalizers":["example.com/hold"]}}'
  allowed "alice may remove finalizers" patch_service alice '{"metadata":{"finalizers":null}}'
  allowed "alice may change owner references" patch_service alice '{"metadata":{"ownerReferences":null}}'
  allowed "a load-balancer controller may write the status" \
    patch_service admin '{"status":{"conditions":[{"type":"example.com/X","status":"True","reason":"Test","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}' --subresource=status
  allowed "a write without a change passes" patch_service alice '{"spec":{"type":"ClusterIP"}}'
  allowed "in an emergency the break-glass group may change a leader Service" \
    patch_service break_glass '{"spec":{"selector":{"app":"other"}}}'
  allowed "alice may remove that selector again" patch_service alice '{"spec":{"selector":null}}'
  allowed "zen-lead may change ports" patch_service zen_lead '{"spec":{"ports":[{"name":"http","port":80,"targetPort":8080}]}}'
  allowed "the policy does not match Services without our label" alice -n "$NS" patch service web --type=merge -p '{"spec":{"ports":[{"name":"http","port":82}]}}'
  allowed "the policy does not match Services with only the managed-by label" alice -n "$NS" label service web app.kubernetes.io/managed-by=zen-lead
}

# The table "Fields of a leader Service" of docs/admission.md.
fields_of_a_leader_service() {
  local field
  for field in '"sessionAffinity":"ClientIP"' '"internalTrafficPolicy":"Local"'; do
    refused "alice cannot set $field" "of a leader Service may not be changed: zen-lead keeps it as the source Service has it. Change the Service web instead" \
      patch_service alice "{\"spec\":{$field}}"
  done
  refused "alice cannot hand it to another proxy" "metadata.labels[service.kubernetes.io/service-proxy-name] of a leader Service may not be changed" \
    patch_service alice '{"metadata":{"labels":{"service.kubernetes.io/service-proxy-name":"other"}}}'
  refused "alice cannot hide it from kube-proxy" "label service.kubernetes.io/headless may not be set on a leader Service" \
    patch_service alice '{"metadata":{"labels":{"service.kubernetes.io/headless":""}}}'
  allowed "the break-glass group may" patch_service break_glass '{"metadata":{"labels":{"service.kubernetes.io/headless":""}}}'
  allowed "other writes pass with that label" patch_service alice '{"metadata":{"labels":{"team":"x"}}}'
  allowed "alice may take it off" patch_service alice '{"metadata":{"labels":{"service.kubernetes.io/headless":null}}}'

  allowed "zen-lead makes it a load balancer" patch_service zen_lead \
    '{"spec":{"type":"LoadBalancer","loadBalancerSourceRanges":["192.0.2.0/24"]}}'
  for field in '"externalTrafficPolicy":"Local"' '"loadBalancerSourceRanges":null' '"allocateLoadBalancerNodePorts":false'; do
    refused "alice cannot set $field" "of a leader Service may not be changed" patch_service alice "{\"spec\":{$field}}"
  done
  allowed "alice may set loadBalancerIP" patch_service alice '{"spec":{"loadBalancerIP":"192.0.2.1"}}'
  allowed "zen-lead makes it a ClusterIP again" patch_service zen_lead \
    '{"spec":{"type":"ClusterIP","loadBalancerSourceRanges":null,"allocateLoadBalancerNodePorts":null,"externalTrafficPolicy":null,"loadBalancerIP":null}}'
  for field in '"externalIPs":["192.0.2.1"]' '"publishNotReadyAddresses":true' '"trafficDistribution":"PreferClose"'; do
    allowed "alice may set $field" patch_service alice "{\"spec\":{$field}}"
  done
  allowed "alice may set the topology mode" patch_service alice '{"metadata":{"annotations":{"service.kubernetes.io/topology-mode":"Auto"}}}'
}

# etcd limits annotations to 256 KiB in sum; the policies must still be able to count them.
many_annotations() {
  awk 'BEGIN { printf "{\"metadata\":{\"annotations\":{"
    for (i = 0; i < 60000; i++) printf "%s\"%x\":\"\"", (i ? "," : ""), i
    print "}}}" }' >"$WORK/many.json"
  allowed "alice may put 60,000 annotations on a leader Service" \
    alice -n "$NS" patch service "$S" --type=merge --patch-file "$WORK/many.json"
  allowed "the policy still checks the next write in time" patch_service alice '{"metadata":{"labels":{"team":"y"}}}'
  refused "it refuses a change of ports" "spec.ports of a leader Service may not be changed" \
    patch_service alice '{"spec":{"ports":[{"name":"http","port":81}]}}'
  refused "it refuses a change of a status key" "zen-lead.io/current-leader may not be" \
    patch_service alice '{"metadata":{"annotations":{"zen-lead.io/current-leader":"me"}}}'
}

slices() {
  refused "alice has no right on slices" "cannot patch resource \"endpointslices\"" \
    patch_slice alice '{"endpoints":[]}'
  refused "the admin cannot empty a slice of ours" \
    "endpoints of this EndpointSlice may not be changed: zen-lead keeps exactly the leader of web-leader in it" \
    patch_slice admin '{"endpoints":[]}'
  refused "the admin cannot add an endpoint" "endpoints of this EndpointSlice may not be changed" \
    patch_slice admin '{"endpoints":[{"addresses":["10.244.0.9"],"conditions":{"ready":true,"serving":true,"terminating":false}},{"addresses":["10.244.0.10"]}]}'
  refused "the admin cannot change the ports of a slice" "ports of this EndpointSlice may not be changed" patch_slice admin '{"ports":[{"name":"http","port":9}]}'
  refused "the admin cannot change the labels of a slice" "metadata.labels of this" patch_slice admin '{"metadata":{"labels":{"kubernetes.io/service-name":"other"}}}'
  refused "the admin cannot give the slice to another controller" "metadata.labels of this" \
    patch_slice admin '{"metadata":{"labels":{"endpointslice.kubernetes.io/managed-by":"other"}}}'
  refused "the admin cannot change the epoch" "zen-lead.io/leader-epoch of this" patch_slice admin '{"metadata":{"annotations":{"zen-lead.io/leader-epoch":"9"}}}'
  refused "the admin cannot create a slice in our name" "only zen-lead creates EndpointSlices with the label endpointslice.kubernetes.io/managed-by=zen-lead" \
    admin -n "$NS" create -f "$WORK/fake-slice.yaml"
  allowed "other annotations of a slice may be set" patch_slice admin '{"metadata":{"annotations":{"example.com/note":"x"}}}'
  allowed "finalizers of a slice may be set" patch_slice admin '{"metadata":{"finalizers":["example.com/hold"]}}'
  allowed "finalizers of a slice may be removed" patch_slice admin '{"metadata":{"finalizers":null}}'
  allowed "owner references of a slice may be changed" patch_slice admin "{\"metadata\":{\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"name\":\"$S\",\"uid\":\"$(uid service "$S")\"}]}}"
  allowed "in an emergency the break-glass group may empty a slice" \
    admin --as=root --as-group=system:masters --as-group=zen-lead:break-glass -n "$NS" patch endpointslice "$L" --type=merge -p '{"endpoints":[]}'
  refused "the admin cannot add an endpoint to an empty slice" "endpoints of this EndpointSlice may not be changed" \
    patch_slice admin '{"endpoints":[{"addresses":["10.244.0.9"]}]}'
  slice web "$(uid service "$S")" | sed 's/10.244.0.9/10.244.0.11/' >"$WORK/slice.yaml"
  allowed "zen-lead replaces its slice" zen_lead -n "$NS" replace -f "$WORK/slice.yaml"
  allowed "the policy does not match slices of others" admin -n "$NS" create -f "$WORK/foreign-slice.yaml"
}

deletion() {
  allowed "alice may delete a leader Service" alice -n "$NS" delete service "$S" --wait=false
  eventually 30 "the garbage collector deletes its slice" absent endpointslice "$L"
  made db
  allowed "alice may delete a source" alice -n "$NS" delete service db --wait=false
  eventually 30 "the garbage collector deletes the leader Service" absent service db-leader
  eventually 30 "the garbage collector deletes the slice too" absent endpointslice db-leader-zen-lead-ipv4
  made cache
  allowed "a source may be deleted in the foreground" alice -n "$NS" delete service cache --cascade=foreground --wait=false
  eventually 30 "the source is deleted" absent service cache
  eventually 30 "its leader Service is deleted" absent service/cache-leader
  made keep
  allowed "a source may be deleted without its dependents" alice -n "$NS" delete service keep --cascade=orphan --wait=false
  eventually 30 "the source is deleted and the leader Service stays" sh -c "! '$KUBECTL' -n $NS get service keep && '$KUBECTL' -n $NS get service keep-leader"
  eventually 30 "the leader Service has no owner" sh -c "[ -z \"\$('$KUBECTL' -n $NS get service keep-leader -o jsonpath='{.metadata.ownerReferences}')\" ]"
  made held
  S=held-leader
  allowed "a leader Service gets a finalizer" patch_service alice '{"metadata":{"finalizers":["example.com/hold"]}}'
  allowed "its deletion begins" alice -n "$NS" delete service "$S" --wait=false
  allowed "during its deletion every change is allowed" patch_service alice '{"spec":{"ports":[{"name":"http","port":81}]}}'
  refused "during its deletion it does not become the leader Service of another source" "zen-lead.io/source-service may not be set" \
    alice -n "$NS" label --overwrite service "$S" zen-lead.io/source-service=web
  allowed "its finalizer may be removed" patch_service alice '{"metadata":{"finalizers":null}}'
  eventually 30 "the leader Service is deleted" absent service "$S"
  forged
}

# A Service and a slice of a user that are being deleted, and take long to go.
forged() {
  local finalizer='{"metadata":{"finalizers":["example.com/hold"]}}'
  source_service doomed >"$WORK/doomed.yaml"
  sed 's/by-hand/doomed/; /ownerReferences/d' "$WORK/foreign-slice.yaml" >"$WORK/doomed-slice.yaml"
  allowed "a user has a Service" alice -n "$NS" create -f "$WORK/doomed.yaml"
  allowed "a user has a slice" admin -n "$NS" create -f "$WORK/doomed-slice.yaml"
  local object
  for object in service/doomed endpointslice/doomed; do
    allowed "$object gets a finalizer" admin -n "$NS" patch "$object" --type=merge -p "$finalizer"
    allowed "the deletion of $object begins" admin -n "$NS" delete "$object" --wait=false
  done
  refused "a Service that is being deleted does not become a leader Service" "zen-lead.io/source-service may not be set" \
    alice -n "$NS" label service doomed zen-lead.io/source-service=web
  refused "nor with an empty label" "zen-lead.io/source-service may not be set" \
    alice -n "$NS" label service doomed zen-lead.io/source-service=
  refused "a slice that is being deleted does not become one of zen-lead" "metadata.labels of this EndpointSlice may not be changed" \
    admin -n "$NS" label --overwrite endpointslice doomed endpointslice.kubernetes.io/managed-by=zen-lead
  for object in service/doomed endpointslice/doomed; do
    allowed "$object may get other labels" admin -n "$NS" label "$object" team=x
    allowed "the finalizer of $object may be removed" admin -n "$NS" patch "$object" --type=merge -p '{"metadata":{"finalizers":null}}'
    eventually 30 "$object is deleted" absent "$object"
  done
}

rights() {
  refused "zen-lead cannot write pods" "cannot delete resource \"pods\"" account zen-lead -n "$NS" delete pod any
  refused "zen-lead cannot read nodes" "cannot list resource \"nodes\"" account zen-lead get nodes
  refused "zen-lead cannot read other webhook configurations" "cannot get resource" account zen-lead get validatingwebhookconfiguration other
  eventually 20 "docs/rights.md lists what zen-lead may do (anywhere)" documented anywhere "$NS"
  eventually 20 "docs/rights.md lists what zen-lead may do (home)" documented home zen-lead-system
  secrets
  external
}

# listed ACCOUNT NAMESPACE: the rights of the account there by the API server, one resource on each line.
listed() { account "$1" -n "$2" auth can-i --list --no-headers | tr -s ' ' | sed 's/ *$//' | LC_ALL=C sort -u; }

# documented PLACE NAMESPACE: the list of that name in docs/rights.md is exactly the list of the API server there.
documented() {
  sed -n "/<!-- list $1 -->/,/<!-- end -->/ s/^    //p" "$ROOT/docs/rights.md" | LC_ALL=C sort -u >"$WORK/documented"
  # Without the rights that every service account has.
  LC_ALL=C comm -13 <(listed other "$2") <(listed zen-lead "$2") >"$WORK/listed"
  [[ -s $WORK/listed ]] && diff "$WORK/documented" "$WORK/listed"
}

# With certificates and webhook configurations of others, there are fewer rights.
external() {
  allowed "certs/cert-manager is built by kustomize" admin kustomize "$ROOT/certs/cert-manager" -o "$WORK/external.yaml"
  # The Issuers and Certificates are of kinds that this cluster does not have.
  awk 'BEGIN { RS = "---\n" } /\nkind: ClusterRole\n/ { print "---"; print }' "$WORK/external.yaml" >"$WORK/external-role.yaml"
  awk 'BEGIN { RS = "---\n" } /\nkind: (Cluster)?Role\n/' "$WORK/external.yaml" >"$WORK/external-roles.yaml"
  if grep -q 'verbs:' "$WORK/external-roles.yaml" && ! grep -q secrets "$WORK/external-roles.yaml"; then
    pass "certs/cert-manager has no right on Secrets"
  else
    cp "$WORK/external-roles.yaml" "$WORK/out" && fail "certs/cert-manager has a right on Secrets"
  fi
  admin apply -f "$WORK/external-role.yaml" >/dev/null
  admin -n zen-lead-system delete role,rolebinding zen-lead >/dev/null
  eventually 20 "docs/rights.md lists what zen-lead may do with certificates of others" documented external zen-lead-system
  admin apply -f "$MANIFESTS/10-rbac.yaml" >/dev/null
  eventually 20 "and the other rights are back" documented home zen-lead-system
}

# can VERB...: the API server's answer for zen-lead.
can() { account zen-lead auth can-i "$@" 2>/dev/null || true; }

# It has no right on any Secret except its own.
secrets() {
  local verb namespace allowed=()
  for verb in get list watch update patch delete deletecollection create; do
    for namespace in "$NS" kube-system zen-lead-system; do
      [[ $(can "$verb" secrets -n "$namespace") != yes ]] || allowed+=("$verb in $namespace")
      [[ $(can "$verb" secrets/other -n "$namespace") != yes ]] || allowed+=("$verb other in $namespace")
    done
    [[ $(can "$verb" secrets -A) != yes ]] || allowed+=("$verb everywhere")
  done
  printf '%s\n' "${allowed[@]}" >"$WORK/out"
  # RBAC cannot narrow "create" to a name.
  if [[ "$(sort -u "$WORK/out" | paste -sd ,)" == "create in zen-lead-system,create other in zen-lead-system" ]]; then
    pass "zen-lead may create Secrets in its namespace, and has no other right on Secrets except its own"
  else
    fail "zen-lead has more or fewer rights on Secrets"
  fi
  if [[ $(can get secrets/zen-lead-ca -n zen-lead-system) == yes ]]; then pass "zen-lead may read its own Secret"; else fail "zen-lead may not read its own Secret"; fi
}

privileged_pod() {
  cat <<YAML
apiVersion: v1
kind: Pod
metadata: {name: privileged}
spec: {containers: [{name: x, image: x, securityContext: {privileged: true}}]}
YAML
}

# The webhooks are registered and no replica answers: other writes must not be blocked.
webhooks_without_zen_lead() {
  local s=plain
  source_service "$s" | alice -n "$NS" create -f - >/dev/null
  source_service live | alice -n "$NS" create -f - >/dev/null
  alice -n "$NS" annotate service live zen-lead.io/enabled=true zen-lead.io/sticky=false >/dev/null
  admin apply -f "$MANIFESTS/60-webhooks.yaml" >/dev/null
  eventually 30 "the webhooks are in force" \
    sh -c "! '$KUBECTL' -n $NS annotate --dry-run=server service plain zen-lead.io/enabled=true"

  local down='failed calling webhook "validate.zen-lead.io"'
  refused "while zen-lead is down, enabling a Service is refused" "$down" alice -n "$NS" annotate service plain zen-lead.io/enabled=true
  refused "while zen-lead is down, a mistyped key is refused" "$down" alice -n "$NS" annotate service plain zen-lead.io/enabld=true
  refused "while zen-lead is down, a key set through the status is refused" "$down" admin -n "$NS" patch service plain --subresource=status --type=merge \
    -p '{"metadata":{"annotations":{"zen-lead.io/enabled":"true"}}}'
  refused "while zen-lead is down, a changed key of an enabled Service is refused" "$down" alice -n "$NS" annotate --overwrite service live zen-lead.io/sticky=true
  refused "while zen-lead is down, a changed selector of an enabled Service is refused" "$down" alice -n "$NS" patch service live --type=merge -p '{"spec":{"selector":{"app":"x"}}}'

  source_service plain-2 >"$WORK/plain-2.yaml"
  allowed "plain Services can be created" alice -n "$NS" create -f "$WORK/plain-2.yaml"
  allowed "plain Services can be changed" alice -n "$NS" patch service plain --type=merge -p '{"spec":{"selector":{"app":"x"}}}'
  allowed "plain Services can be deleted" alice -n "$NS" delete service plain-2
  allowed "an enabled Service can get other annotations" alice -n "$NS" annotate service live example.com/note=x
  allowed "an enabled Service can get labels" alice -n "$NS" label service live team=x
  allowed "an enabled Service can get finalizers" alice -n "$NS" patch service live --type=merge -p '{"metadata":{"finalizers":["example.com/hold"]}}'
  allowed "an enabled Service can get a status" admin -n "$NS" patch service live --subresource=status --type=merge \
    -p '{"status":{"loadBalancer":{}}}'
  allowed "a key may be removed" alice -n "$NS" annotate service live zen-lead.io/sticky-
  allowed "writes of zen-lead itself are not reviewed" zen_lead -n "$NS" annotate --overwrite service keep-leader zen-lead.io/decision-version=2
  allowed "an enabled Service may be deleted" alice -n "$NS" delete service live --wait=false
  allowed "during its deletion every change is allowed" alice -n "$NS" patch service live --type=merge -p '{"metadata":{"annotations":{"zen-lead.io/x":"y"}}}'
  allowed "its finalizer may be removed" alice -n "$NS" patch service live --type=merge -p '{"metadata":{"finalizers":null}}'
  allowed "kube-system is exempt" admin -n kube-system create --dry-run=server -f - <<<'{"apiVersion":"v1","kind":"Service","metadata":{"name":"x","annotations":{"zen-lead.io/enabled":"true"}},"spec":{"selector":{"a":"b"},"ports":[{"port":80}]}}'

  local started=$SECONDS
  allowed "a plain Service may have 60,000 annotations" alice -n "$NS" patch service plain --type=merge --patch-file "$WORK/many.json"
  allowed "a plain Service with 60,000 annotations can be changed" alice -n "$NS" label service plain team=x
  if ((SECONDS - started < 60)); then pass "both writes were fast"; else fail "both writes took $((SECONDS - started)) s"; fi
  refused "our key among 60,000 annotations is found" "$down" alice -n "$NS" annotate service plain zen-lead.io/enabled=true
}

bundle() { admin get "$1webhookconfiguration" zen-lead -o jsonpath='{.webhooks[0].clientConfig.caBundle}'; }

# Applying the manifest again must not remove what zen-lead wrote.
ca_bundle() {
  local kind lower
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=test -days 1 \
    -keyout /dev/null -out "$WORK/ca.crt" 2>/dev/null
  base64 -w0 "$WORK/ca.crt" >"$WORK/bundle"
  for kind in Mutating Validating; do
    lower=${kind,,}
    cat >"$WORK/$lower.yaml" <<YAML
apiVersion: admissionregistration.k8s.io/v1
kind: ${kind}WebhookConfiguration
metadata: {name: zen-lead}
webhooks: [{name: ${lower/ing/e}.zen-lead.io, clientConfig: {caBundle: $(<"$WORK/bundle")}}]
YAML
    sed -i 's/mutatee/mutate/; s/validatee/validate/' "$WORK/$lower.yaml"
    allowed "zen-lead writes the caBundle ($lower)" \
      zen_lead apply --server-side --field-manager=zen-lead-ca-bundle -f "$WORK/$lower.yaml"
  done
  allowed "the manifest is applied again" admin apply -f "$MANIFESTS/60-webhooks.yaml"
  unchanged_bundles
  allowed "the manifest is applied server-side by another manager" admin apply --server-side --force-conflicts --field-manager=gitops -f "$MANIFESTS/60-webhooks.yaml"
  unchanged_bundles
}

unchanged_bundles() {
  local kind
  for kind in mutating validating; do
    if [[ $(bundle "$kind") == "$(<"$WORK/bundle")" ]]; then pass "the caBundle is still there ($kind)"; else fail "caBundle lost ($kind)"; fi
  done
}

no_webhooks() { [[ -z $(admin get mutatingwebhookconfiguration,validatingwebhookconfiguration zen-lead --ignore-not-found -o name) ]]; }

# flow_schema USER...: the uid of the FlowSchema by which the API server sorted a call of that user.
flow_schema() { "$@" -n "$NS" get services -o name -v=8 2>&1 | sed -n 's/.*X-Kubernetes-Pf-Flowschema-Uid: //Ip' | tr -d '\r' | head -n 1; }
flow_schema_uid() { admin get flowschema "$1" -o jsonpath='{.metadata.uid}'; }
# sorted_by FLOWSCHEMA USER...
sorted_by() { [[ -n $(flow_schema_uid "$1") && $(flow_schema "${@:2}") == "$(flow_schema_uid "$1")" ]]; }

# A leader's replacement must not queue behind batch work of other clients.
priority() {
  eventually 30 "zen-lead's calls are sorted by its own FlowSchema" sorted_by zen-lead zen_lead
  eventually 10 "those of its namespace's other service accounts are not" sorted_by service-accounts \
    admin --as=system:serviceaccount:zen-lead-system:other --as-group=system:serviceaccounts
  eventually 10 "its level is that of the controllers in kube-system" level_of zen-lead kube-system-service-accounts
}
level_of() { [[ $(level "$1") == workload-high && $(level "$1") == "$(level "$2")" ]]; }
level() { admin get flowschema "$1" -o jsonpath='{.spec.priorityLevelConfiguration.name}'; }

# The last leader Service and everything else can be written by hand; nothing of the installation blocks it.
writable() {
  eventually 20 "Services with our keys are writable again" alice -n "$NS" annotate --overwrite service web zen-lead.io/enabled=maybe
  allowed "Services with our keys can be created" alice -n "$NS" create --dry-run=server -f - <<<"$(source_service new | sed 's/name: new/name: new, annotations: {zen-lead.io\/enabled: "true"}/')"
  allowed "plain Services can be created" alice -n "$NS" create --dry-run=server -f - <<<"$(source_service new)"
  eventually 20 "leader Services can be changed by hand" patch_service alice '{"spec":{"selector":{"app":"last"}}}'
  eventually 20 "slices can be changed by hand" admin -n "$NS" patch endpointslice "$S-zen-lead-ipv4" --type=merge -p '{"endpoints":[]}'
  if [[ -z $(admin -n "$NS" get services,endpointslices -o jsonpath='{.items[*].metadata.finalizers}' 2>"$WORK/out") ]]; then
    pass "nothing has a finalizer"
  else
    fail "something has a finalizer"
  fi
  allowed "leader Services can be deleted" alice -n "$NS" delete service "$S"
}

uninstall_namespace() {
  made last
  S=last-leader
  allowed "the namespace zen-lead-system alone can be deleted" admin delete namespace zen-lead-system --wait=true --timeout=60s
  if no_webhooks; then fail "the webhook configurations went with it, so the next cases show nothing"; else pass "the webhook configurations stay"; fi
  writable
}

# Installed but dead: its image does not exist, so no process runs.
uninstall_dead() {
  admin kustomize "$ROOT/deploy" | sed 's|image: zen-lead:dev|image: zen-lead:none|; s|IfNotPresent|Never|' >"$WORK/deploy.yaml"
  allowed "all of deploy/ can be applied" admin apply -f "$WORK/deploy.yaml"
  eventually 30 "Pod Security (restricted) lets zen-lead's pods in" two_pods app.kubernetes.io/name=zen-lead
  refused "Pod Security refuses a privileged pod" 'violates PodSecurity "restricted:latest"' \
    admin -n zen-lead-system create --dry-run=server -f - <<<"$(privileged_pod)"
  local selector
  selector=$(admin -n zen-lead-system get networkpolicy zen-lead -o jsonpath='{.spec.podSelector.matchLabels}' | tr -d '{}"' | tr : =)
  eventually 10 "the NetworkPolicy selects them" two_pods "$selector"
  eventually 30 "the webhooks are in force again" \
    sh -c "! '$KUBECTL' -n $NS annotate --dry-run=server --overwrite service web zen-lead.io/enabled=true"
  made dead
  S=dead-leader
  allowed "kubectl delete -k deploy ends" admin delete -k "$ROOT/deploy" --timeout=90s
  if no_webhooks; then pass "the webhook configurations are gone"; else fail "a webhook configuration is left"; fi
  writable
  local left
  left=$(admin get clusterroles,clusterrolebindings,flowschemas,validatingadmissionpolicies,validatingadmissionpolicybindings,namespaces \
    -o name | grep zen-lead || true)
  echo "$left" >"$WORK/out"
  if [[ -z $left ]]; then pass "nothing of deploy/ is left"; else fail "something of deploy/ is left"; fi
  allowed "a namespace with leader Services can be deleted" admin delete namespace "$NS" --wait=true --timeout=60s
}
two_pods() { [[ $(admin -n zen-lead-system get pods -l "$1" -o name | wc -l) -eq 2 ]]; }

# The manifests for the Prometheus operator: its kinds are not in this cluster, so only their syntax and
# the other kinds are checked. Fields and queries: tests/monitoring and tests/cluster/monitoring.rs.
monitoring() {
  allowed "deploy/monitoring is built by kustomize" admin kustomize "$ROOT/deploy/monitoring" -o "$WORK/monitoring.yaml"
  # One file for each document; only the kind of the dashboard is known here.
  awk -v dir="$WORK" 'BEGIN { n = 0 } /^---$/ { n++; next } { print > (dir "/monitoring-" n ".yaml") }' "$WORK/monitoring.yaml"
  local kinds
  kinds=$(sed -n 's/^kind: //p' "$WORK"/monitoring-*.yaml | sort | paste -sd ' ')
  if [[ $kinds == "ConfigMap PrometheusRule ServiceMonitor" ]]; then pass "with a dashboard, rules and a ServiceMonitor"; else
    echo "$kinds" >"$WORK/out" && fail "deploy/monitoring is made of other kinds"
  fi
  allowed "the dashboard fits a ConfigMap that kubectl applies" \
    admin apply --dry-run=server -f "$(grep -l '^kind: ConfigMap' "$WORK"/monitoring-*.yaml)"
}

set_up
source_service other | sed 's/name: other/name: fake-leader, labels: {app.kubernetes.io\/managed-by: zen-lead, zen-lead.io\/source-service: web}/' >"$WORK/fake.yaml"
made web
slice other "$(uid service web)" >"$WORK/fake-slice.yaml"
sed 's/managed-by: zen-lead/managed-by: me/; s/other-leader-zen-lead-ipv4/by-hand/' "$WORK/fake-slice.yaml" >"$WORK/foreign-slice.yaml"
leader_services
fields_of_a_leader_service
many_annotations
slices
own_account
deletion
rights
priority
webhooks_without_zen_lead
ca_bundle
own_webhooks
monitoring
components
without_webhook
uninstall_namespace
admin delete -f "$WITHOUT_WEBHOOK" >/dev/null
uninstall_dead
conclude
