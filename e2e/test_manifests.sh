#!/usr/bin/env bash
# Tests the manifests in deploy/ on the real API server of the running cluster: what
# others may do to leader Services and their slices and what they are told, what
# passes while zen-lead is down, what it may do itself, and what an uninstall leaves.
#
#   e2e/test_manifests.sh      needs a running cluster (e2e/cluster.sh up)
#
# zen-lead itself does not run here; the test plays it by impersonating its service
# account. What the webhook answers is tested elsewhere.
set -euo pipefail
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
ROOT=$(dirname -- "$HERE")

[[ -r $ROOT/target/cluster/env ]] || { echo "no cluster runs; start one: e2e/cluster.sh up" >&2; exit 1; }
# shellcheck source=/dev/null
. "$ROOT/target/cluster/env"

MANIFESTS=$ROOT/deploy/manifests
NS=manifests-test
WORK=$(mktemp -d)
FAILED=0 PASSED=0

admin() { KUBECONFIG=$KUBECONFIG "$KUBECTL" "$@"; }
alice() { KUBECONFIG=$KUBECONFIG_USER "$KUBECTL" "$@"; }
account() { admin --as="system:serviceaccount:zen-lead-system:$1" --as-group=system:serviceaccounts "${@:2}"; }
# kubectl reads what it is to write, which zen-lead does not: the group is for that (see set_up).
zen_lead() { account zen-lead --as-group=manifests-test "$@"; }
break_glass() { admin --as=alice --as-group=zen-lead:break-glass --as-group=system:authenticated "$@"; }

clean_up() {
  admin delete --ignore-not-found --wait=false namespace "$NS" zen-lead-system >/dev/null 2>&1 || true
  admin delete --ignore-not-found -f "$MANIFESTS/60-webhooks.yaml" -f "$MANIFESTS/70-protection.yaml" \
    -f "$MANIFESTS/10-rbac.yaml" >/dev/null 2>&1 || true
  admin delete --ignore-not-found clusterrole/manifests-test clusterrolebinding/manifests-test >/dev/null 2>&1 || true
  rm -rf "$WORK"
}
trap clean_up EXIT

pass() { PASSED=$((PASSED + 1)) && printf 'ok    %s\n' "$1"; }
fail() {
  FAILED=$((FAILED + 1))
  printf 'FAIL  %s\n' "$1"
  sed 's/^/      /' "$WORK/out"
}

# allowed WHAT COMMAND...
allowed() {
  local what=$1
  shift
  if "$@" >"$WORK/out" 2>&1; then pass "$what"; else fail "$what: was refused"; fi
}

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

# eventually SECONDS WHAT COMMAND...
eventually() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >"$WORK/out" 2>&1; do
    [[ $SECONDS -lt $deadline ]] || { fail "$what: not in time"; return 0; }
    sleep 0.2
  done
  pass "$what"
}

absent() { [[ -z $(admin -n "$NS" get --ignore-not-found -o name "$@") ]]; }

set_up() {
  clean_up
  mkdir -p "$WORK"
  eventually 60 "no namespace of an earlier run is left" \
    sh -c "! '$KUBECTL' get namespace $NS && ! '$KUBECTL' get namespace zen-lead-system"
  admin apply -f "$MANIFESTS/00-namespace.yaml" -f "$MANIFESTS/10-rbac.yaml" -f "$MANIFESTS/70-protection.yaml" >/dev/null
  admin create namespace "$NS" >/dev/null
  admin create clusterrole manifests-test --verb=get --resource=services >/dev/null
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

# made SOURCE: a source, its leader Service and its slice, as zen-lead makes them.
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
  refused "nor change its ports" "spec.ports of a leader Service may not be changed" \
    patch_service alice '{"spec":{"ports":[{"name":"http","port":81}]}}'
  refused "nor its type" "spec.type" patch_service alice '{"spec":{"type":"NodePort"}}'
  refused "nor make it an ExternalName" "spec.type, spec.externalName" \
    patch_service alice '{"spec":{"type":"ExternalName","externalName":"example.com"}}'
  refused "nor its families" "spec.ipFamilies, spec.ipFamilyPolicy of a leader Service may not be changed" \
    patch_service alice '{"spec":{"ipFamilyPolicy":"PreferDualStack","ipFamilies":["IPv4","IPv6"]}}'
  refused "two changes are named in one message" "spec.selector, spec.ports of a leader" \
    patch_service alice '{"spec":{"selector":{"app":"x"},"ports":[{"name":"http","port":81}]}}'
  refused "nor set a status key" "zen-lead.io/current-leader may not be set, changed or removed here" \
    patch_service alice '{"metadata":{"annotations":{"zen-lead.io/current-leader":"me"}}}'
  refused "nor change one" "Settings belong on the Service web;" \
    patch_service alice '{"metadata":{"annotations":{"zen-lead.io/decision-version":"9"}}}'
  refused "nor remove one" "zen-lead.io/decision-version may not be" \
    patch_service alice '{"metadata":{"annotations":{"zen-lead.io/decision-version":null}}}'
  refused "nor by way of the status" "zen-lead.io/current-leader may not be" \
    patch_service admin '{"metadata":{"annotations":{"zen-lead.io/current-leader":"me"}}}' --subresource=status
  refused "nor take the label off" "zen-lead.io/source-service may not be" \
    patch_service alice '{"metadata":{"labels":{"zen-lead.io/source-service":null}}}'
  refused "nor change the label" "zen-lead.io/source-service may not be" \
    patch_service alice '{"metadata":{"labels":{"zen-lead.io/source-service":"other"}}}'
  refused "nor label it as the work of another tool, with all others" \
    "label app.kubernetes.io/managed-by of a leader Service may not be changed: zen-lead made it for the Service web" \
    alice -n "$NS" label service "$S" app.kubernetes.io/managed-by=Helm --overwrite
  refused "nor put the label on a Service of her own" "To get a leader Service, annotate the source" \
    alice -n "$NS" label service web zen-lead.io/source-service=web
  refused "nor create a leader Service" "only zen-lead creates Services with the label zen-lead.io/source-service. To get a leader Service, annotate the source" \
    alice -n "$NS" create -f "$WORK/fake.yaml"
  refused "the admin is told the same" "spec.ports of a leader Service may not be changed" \
    patch_service admin '{"spec":{"ports":[{"name":"http","port":81}]}}'

  allowed "alice may set other annotations" patch_service alice '{"metadata":{"annotations":{"example.com/note":"x"}}}'
  allowed "and other labels" patch_service alice '{"metadata":{"labels":{"team":"x"}}}'
  allowed "and finalizers" patch_service alice '{"metadata":{"finalizers":["example.com/hold"]}}'
  allowed "and remove them" patch_service alice '{"metadata":{"finalizers":null}}'
  allowed "and owner references" patch_service alice '{"metadata":{"ownerReferences":null}}'
  allowed "a load-balancer controller may write the status" \
    patch_service admin '{"status":{"conditions":[{"type":"example.com/X","status":"True","reason":"Test","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}' --subresource=status
  allowed "a write that changes nothing passes" patch_service alice '{"spec":{"type":"ClusterIP"}}'
  allowed "in an emergency the break-glass group may change a leader Service" \
    patch_service break_glass '{"spec":{"selector":{"app":"other"}}}'
  allowed "and alice may take a selector off again" patch_service alice '{"spec":{"selector":null}}'
  allowed "zen-lead may change ports" patch_service zen_lead '{"spec":{"ports":[{"name":"http","port":80,"targetPort":8080}]}}'
  allowed "Services without our label are not looked at" alice -n "$NS" patch service web --type=merge -p '{"spec":{"ports":[{"name":"http","port":82}]}}'
  allowed "nor those with the managed-by label only" alice -n "$NS" label service web app.kubernetes.io/managed-by=zen-lead
}

# etcd limits annotations to 256 KiB in sum; the policies must still be able to count them.
many_annotations() {
  awk 'BEGIN { printf "{\"metadata\":{\"annotations\":{"
    for (i = 0; i < 60000; i++) printf "%s\"%x\":\"\"", (i ? "," : ""), i
    print "}}}" }' >"$WORK/many.json"
  allowed "alice may put 60,000 annotations on a leader Service" \
    alice -n "$NS" patch service "$S" --type=merge --patch-file "$WORK/many.json"
  allowed "and the next write is still judged in time" patch_service alice '{"metadata":{"labels":{"team":"y"}}}'
  refused "and rightly" "spec.ports of a leader Service may not be changed" \
    patch_service alice '{"spec":{"ports":[{"name":"http","port":81}]}}'
  refused "also keys" "zen-lead.io/current-leader may not be" \
    patch_service alice '{"metadata":{"annotations":{"zen-lead.io/current-leader":"me"}}}'
}

slices() {
  refused "alice has no right on slices at all" "cannot patch resource \"endpointslices\"" \
    patch_slice alice '{"endpoints":[]}'
  refused "who has it cannot empty a slice of ours" \
    "endpoints of this EndpointSlice may not be changed: zen-lead keeps exactly the leader of web-leader in it" \
    patch_slice admin '{"endpoints":[]}'
  refused "nor add an endpoint" "endpoints of this EndpointSlice may not be changed" \
    patch_slice admin '{"endpoints":[{"addresses":["10.244.0.9"],"conditions":{"ready":true,"serving":true,"terminating":false}},{"addresses":["10.244.0.10"]}]}'
  refused "nor change ports" "ports of this EndpointSlice may not be changed" patch_slice admin '{"ports":[{"name":"http","port":9}]}'
  refused "nor labels" "metadata.labels of this" patch_slice admin '{"metadata":{"labels":{"kubernetes.io/service-name":"other"}}}'
  refused "nor take it out of our hands" "metadata.labels of this" \
    patch_slice admin '{"metadata":{"labels":{"endpointslice.kubernetes.io/managed-by":"other"}}}'
  refused "nor the epoch" "zen-lead.io/leader-epoch of this" patch_slice admin '{"metadata":{"annotations":{"zen-lead.io/leader-epoch":"9"}}}'
  refused "nor create one in our name" "only zen-lead creates EndpointSlices with the label endpointslice.kubernetes.io/managed-by=zen-lead" \
    admin -n "$NS" create -f "$WORK/fake-slice.yaml"
  allowed "other annotations may be set" patch_slice admin '{"metadata":{"annotations":{"example.com/note":"x"}}}'
  allowed "and finalizers" patch_slice admin '{"metadata":{"finalizers":["example.com/hold"]}}'
  allowed "and taken off" patch_slice admin '{"metadata":{"finalizers":null}}'
  allowed "and owner references" patch_slice admin "{\"metadata\":{\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"name\":\"$S\",\"uid\":\"$(uid service "$S")\"}]}}"
  allowed "in an emergency the break-glass group may empty it" \
    admin --as=root --as-group=system:masters --as-group=zen-lead:break-glass -n "$NS" patch endpointslice "$L" --type=merge -p '{"endpoints":[]}'
  refused "nor may others add an endpoint to an empty one" "endpoints of this EndpointSlice may not be changed" \
    patch_slice admin '{"endpoints":[{"addresses":["10.244.0.9"]}]}'
  slice web "$(uid service "$S")" | sed 's/10.244.0.9/10.244.0.11/' >"$WORK/slice.yaml"
  allowed "zen-lead replaces it" zen_lead -n "$NS" replace -f "$WORK/slice.yaml"
  allowed "slices of others are not looked at" admin -n "$NS" create -f "$WORK/foreign-slice.yaml"
}

deletion() {
  allowed "alice may delete a leader Service" alice -n "$NS" delete service "$S" --wait=false
  eventually 30 "the garbage collector takes its slice" absent endpointslice "$L"
  made db
  allowed "alice may delete a source" alice -n "$NS" delete service db --wait=false
  eventually 30 "the garbage collector takes the leader Service" absent service db-leader
  eventually 30 "and its slice" absent endpointslice db-leader-zen-lead-ipv4
  made cache
  allowed "a source may be deleted in the foreground" alice -n "$NS" delete service cache --cascade=foreground --wait=false
  eventually 30 "it goes" absent service cache
  eventually 30 "with all it owns" absent service/cache-leader
  made keep
  allowed "a source may be deleted leaving orphans" alice -n "$NS" delete service keep --cascade=orphan --wait=false
  eventually 30 "it goes and the leader Service stays" sh -c "! '$KUBECTL' -n $NS get service keep && '$KUBECTL' -n $NS get service keep-leader"
  eventually 30 "without an owner" sh -c "[ -z \"\$('$KUBECTL' -n $NS get service keep-leader -o jsonpath='{.metadata.ownerReferences}')\" ]"
  made held
  S=held-leader
  allowed "a leader Service with a finalizer" patch_service alice '{"metadata":{"finalizers":["example.com/hold"]}}'
  allowed "is being deleted" alice -n "$NS" delete service "$S" --wait=false
  allowed "then anything may be changed" patch_service alice '{"spec":{"ports":[{"name":"http","port":81}]}}'
  allowed "and the finalizer taken off" patch_service alice '{"metadata":{"finalizers":null}}'
  eventually 30 "it is gone" absent service "$S"
}

rights() {
  refused "zen-lead cannot write pods" "cannot delete resource \"pods\"" account zen-lead -n "$NS" delete pod any
  refused "nor read nodes" "cannot list resource \"nodes\"" account zen-lead get nodes
  refused "nor other webhook configurations" "cannot get resource" account zen-lead get validatingwebhookconfiguration other
  documented
  secrets
}

# listed ACCOUNT NAMESPACE: what the API server says the account may do there, one resource a line.
listed() { account "$1" -n "$2" auth can-i --list --no-headers | tr -s ' ' | sed 's/ *$//' | LC_ALL=C sort -u; }

# Between two lines of docs/rights.md stands what the API server lists, no more and no less.
documented() {
  local place namespace
  for place in anywhere home; do
    namespace=$NS
    if [[ $place == home ]]; then namespace=zen-lead-system; fi
    sed -n "/<!-- list $place -->/,/<!-- end -->/ s/^    //p" "$ROOT/docs/rights.md" | LC_ALL=C sort -u >"$WORK/documented"
    # What every service account may do is not zen-lead's.
    LC_ALL=C comm -13 <(listed other "$namespace") <(listed zen-lead "$namespace") >"$WORK/listed"
    if diff "$WORK/documented" "$WORK/listed" >"$WORK/out" && [[ -s $WORK/listed ]]; then
      pass "docs/rights.md lists what zen-lead may do ($place)"
    else
      fail "docs/rights.md (<) and the API server (>) disagree on what zen-lead may do ($place)"
    fi
  done
}

# can VERB...: the API server's answer for zen-lead.
can() { account zen-lead auth can-i "$@" 2>/dev/null || true; }

# No Secret but its own, by no verb, nowhere.
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
    pass "zen-lead may create Secrets at home, and do nothing else to any Secret but its own"
  else
    fail "zen-lead may do more, or less, to Secrets"
  fi
  if [[ $(can get secrets/zen-lead-ca -n zen-lead-system) == yes ]]; then pass "it may read its own"; else fail "not its own"; fi
}

privileged_pod() {
  cat <<YAML
apiVersion: v1
kind: Pod
metadata: {name: privileged}
spec: {containers: [{name: x, image: x, securityContext: {privileged: true}}]}
YAML
}

# The webhooks are registered, nobody answers: the promise that they are never in the way.
webhooks_without_zen_lead() {
  local s=plain
  source_service "$s" | alice -n "$NS" create -f - >/dev/null
  source_service live | alice -n "$NS" create -f - >/dev/null
  alice -n "$NS" annotate service live zen-lead.io/enabled=true zen-lead.io/sticky=false >/dev/null
  admin apply -f "$MANIFESTS/60-webhooks.yaml" >/dev/null
  eventually 30 "the webhooks are in force" \
    sh -c "! '$KUBECTL' -n $NS annotate --dry-run=server service plain zen-lead.io/enabled=true"

  local down='failed calling webhook "validate.zen-lead.io"'
  refused "zen-lead is down: turning a Service on is refused" "$down" alice -n "$NS" annotate service plain zen-lead.io/enabled=true
  refused "so is a mistyped key" "$down" alice -n "$NS" annotate service plain zen-lead.io/enabld=true
  refused "and one that comes by way of the status" "$down" admin -n "$NS" patch service plain --subresource=status --type=merge \
    -p '{"metadata":{"annotations":{"zen-lead.io/enabled":"true"}}}'
  refused "and a changed key of an enabled Service" "$down" alice -n "$NS" annotate --overwrite service live zen-lead.io/sticky=true
  refused "and a change of what it selects" "$down" alice -n "$NS" patch service live --type=merge -p '{"spec":{"selector":{"app":"x"}}}'

  source_service plain-2 >"$WORK/plain-2.yaml"
  allowed "plain Services can be created" alice -n "$NS" create -f "$WORK/plain-2.yaml"
  allowed "and changed" alice -n "$NS" patch service plain --type=merge -p '{"spec":{"selector":{"app":"x"}}}'
  allowed "and deleted" alice -n "$NS" delete service plain-2
  allowed "an enabled Service takes other annotations" alice -n "$NS" annotate service live example.com/note=x
  allowed "and labels" alice -n "$NS" label service live team=x
  allowed "and finalizers" alice -n "$NS" patch service live --type=merge -p '{"metadata":{"finalizers":["example.com/hold"]}}'
  allowed "and a status" admin -n "$NS" patch service live --subresource=status --type=merge \
    -p '{"status":{"loadBalancer":{}}}'
  allowed "a key may be taken off" alice -n "$NS" annotate service live zen-lead.io/sticky-
  allowed "zen-lead itself is not judged" zen_lead -n "$NS" annotate service live zen-lead.io/sticky=false
  allowed "an enabled Service may be deleted" alice -n "$NS" delete service live --wait=false
  allowed "then anything may be changed" alice -n "$NS" patch service live --type=merge -p '{"metadata":{"annotations":{"zen-lead.io/x":"y"}}}'
  allowed "and the finalizer taken off" alice -n "$NS" patch service live --type=merge -p '{"metadata":{"finalizers":null}}'
  allowed "kube-system is exempt" admin -n kube-system create --dry-run=server -f - <<<'{"apiVersion":"v1","kind":"Service","metadata":{"name":"x","annotations":{"zen-lead.io/enabled":"true"}},"spec":{"selector":{"a":"b"},"ports":[{"port":80}]}}'

  local started=$SECONDS
  allowed "a plain Service may have 60,000 annotations" alice -n "$NS" patch service plain --type=merge --patch-file "$WORK/many.json"
  allowed "and is written as before" alice -n "$NS" label service plain team=x
  if ((SECONDS - started < 60)); then pass "in good time"; else fail "but it took $((SECONDS - started)) s"; fi
  refused "and our key among them is seen" "$down" alice -n "$NS" annotate service plain zen-lead.io/enabled=true
}

bundle() { admin get "$1webhookconfiguration" zen-lead -o jsonpath='{.webhooks[0].clientConfig.caBundle}'; }

# Applying the manifest again must not take away what zen-lead wrote.
ca_bundle() {
  local kind owner lower
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=test -days 1 \
    -keyout /dev/null -out "$WORK/ca.crt" 2>/dev/null
  base64 -w0 "$WORK/ca.crt" >"$WORK/bundle"
  owner="[{apiVersion: v1, kind: Namespace, name: zen-lead-system, uid: $(admin get namespace zen-lead-system -o jsonpath='{.metadata.uid}')}]"
  for kind in Mutating Validating; do
    lower=${kind,,}
    cat >"$WORK/$lower.yaml" <<YAML
apiVersion: admissionregistration.k8s.io/v1
kind: ${kind}WebhookConfiguration
metadata: {name: zen-lead, ownerReferences: $owner}
webhooks: [{name: ${lower/ing/e}.zen-lead.io, clientConfig: {caBundle: $(<"$WORK/bundle")}}]
YAML
    sed -i 's/mutatee/mutate/; s/validatee/validate/' "$WORK/$lower.yaml"
    allowed "zen-lead writes caBundle and owner ($lower)" \
      zen_lead apply --server-side --field-manager=zen-lead-ca-bundle -f "$WORK/$lower.yaml"
  done
  allowed "the manifest is applied again" admin apply -f "$MANIFESTS/60-webhooks.yaml"
  unchanged_bundles
  allowed "and server-side, by another manager" admin apply --server-side --force-conflicts --field-manager=gitops -f "$MANIFESTS/60-webhooks.yaml"
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

# A leader's replacement must not queue behind everybody's batch work.
priority() {
  eventually 30 "zen-lead's calls are sorted by its own FlowSchema" sorted_by zen-lead zen_lead
  eventually 10 "those of its namespace's other service accounts are not" sorted_by service-accounts \
    admin --as=system:serviceaccount:zen-lead-system:other --as-group=system:serviceaccounts
  eventually 10 "its level is that of the controllers in kube-system" level_of zen-lead kube-system-service-accounts
}
level_of() { [[ $(level "$1") == workload-high && $(level "$1") == "$(level "$2")" ]]; }
level() { admin get flowschema "$1" -o jsonpath='{.spec.priorityLevelConfiguration.name}'; }

# The last leader Service and everything else can be written by hand; nothing of the install is in the way.
writable() {
  eventually 30 "the webhooks are gone" no_webhooks
  eventually 20 "Services with our keys are writable again" alice -n "$NS" annotate --overwrite service web zen-lead.io/enabled=maybe
  allowed "and can be created" alice -n "$NS" create --dry-run=server -f - <<<"$(source_service new | sed 's/name: new/name: new, annotations: {zen-lead.io\/enabled: "true"}/')"
  allowed "plain ones too" alice -n "$NS" create --dry-run=server -f - <<<"$(source_service new)"
  eventually 20 "leader Services can be changed by hand" patch_service alice '{"spec":{"selector":{"app":"last"}}}'
  eventually 20 "and slices" admin -n "$NS" patch endpointslice "$S-zen-lead-ipv4" --type=merge -p '{"endpoints":[]}'
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
  writable
}

# Installed and dead: its pods find no image of that name, so no process ever runs.
uninstall_dead() {
  admin kustomize "$ROOT/deploy" | sed 's|image: zen-lead:dev|image: zen-lead:none|; s|IfNotPresent|Never|' >"$WORK/deploy.yaml"
  allowed "all of deploy/ can be applied" admin apply -f "$WORK/deploy.yaml"
  eventually 30 "Pod Security (restricted) lets zen-lead's pods in" two_pods app.kubernetes.io/name=zen-lead
  refused "and no other kind of pod" 'violates PodSecurity "restricted:latest"' \
    admin -n zen-lead-system create --dry-run=server -f - <<<"$(privileged_pod)"
  local selector
  selector=$(admin -n zen-lead-system get networkpolicy zen-lead -o jsonpath='{.spec.podSelector.matchLabels}' | tr -d '{}"' | tr : =)
  eventually 10 "the NetworkPolicy selects them" two_pods "$selector"
  eventually 30 "the webhooks are in force again" \
    sh -c "! '$KUBECTL' -n $NS annotate --dry-run=server --overwrite service web zen-lead.io/enabled=true"
  made dead
  S=dead-leader
  allowed "kubectl delete -k deploy comes to its end" admin delete -k "$ROOT/deploy" --timeout=90s
  writable
  local left
  left=$(admin get clusterroles,clusterrolebindings,flowschemas,validatingadmissionpolicies,validatingadmissionpolicybindings,namespaces \
    -o name | grep zen-lead || true)
  echo "$left" >"$WORK/out"
  if [[ -z $left ]]; then pass "nothing of deploy/ is left"; else fail "something of deploy/ is left"; fi
  allowed "a namespace with leader Services can be deleted" admin delete namespace "$NS" --wait=true --timeout=60s
}
two_pods() { [[ $(admin -n zen-lead-system get pods -l "$1" -o name | wc -l) -eq 2 ]]; }

# What the Prometheus operator would take: its kinds are not in this cluster, so only their syntax and
# the rest. Fields and queries: tests/monitoring and tests/cluster/monitoring.rs.
monitoring() {
  allowed "deploy/monitoring is built by kustomize" admin kustomize "$ROOT/deploy/monitoring" -o "$WORK/monitoring.yaml"
  # One document is one file; the dashboard is the one kind that is known here.
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
many_annotations
slices
deletion
rights
priority
webhooks_without_zen_lead
ca_bundle
monitoring
uninstall_namespace
uninstall_dead
printf '%s passed, %s failed\n' "$PASSED" "$FAILED"
[[ $FAILED -eq 0 ]]
