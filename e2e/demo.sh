#!/usr/bin/env bash
# Shows zen-lead at work, from nothing: starts the cluster, builds and installs
# zen-lead, turns leader routing on for a demo app, deletes the leader while
# requests run, and shows what happened. Everything printed is what this very run
# did; the exit code is 0 only if every step was true.
#
#   make demo          or: e2e/demo.sh
#
#   KEEP=1             leave all of it running, to look around
#   KEEP_CLUSTER=1     clean up, but leave the cluster
#   BINARY=PATH        a static zen-lead that is built already, instead of building one
#   SECONDS_OF_LOAD    how long requests run around the failover (default 8)
#
# Performance is measured by the benches, not here: one failover is an example.
set -euo pipefail
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
ROOT=$(dirname -- "$HERE")
cd "$ROOT"

NS=zen-lead-demo
SYSTEM=zen-lead-system
LOAD=${SECONDS_OF_LOAD:-8}
WORK=$(mktemp -d)
STEP="the start" STARTED=$SECONDS INSTALLED=no CLUSTER_WAS_UP=no

# ---- messages and checks

step() {
  STEP=$1
  printf '\n\033[1m== %s\033[0m\n' "$1"
}
say() { printf '   %s\n' "$*"; }
show() { sed 's/^/   | /' "$@"; }
wrong() {
  printf '\nThe demo failed at "%s": %s\n' "$STEP" "$1" >&2
  exit 1
}
# run USER COMMAND...: shows a kubectl command as a user would type it, and its output.
run() {
  local user=$1
  shift
  printf '   %s$ kubectl %s\n' "$user" "$*"
  "$user" "$@" >"$WORK/out" 2>&1 || { show "$WORK/out" && return 1; }
  show "$WORK/out"
}
admin() { KUBECONFIG=$KUBECONFIG "$KUBECTL" "$@"; }
alice() { KUBECONFIG=$KUBECONFIG_USER "$KUBECTL" -n "$NS" "$@"; }

# ---- end

finish() {
  local code=$?
  trap - EXIT
  if [[ $code -ne 0 && $INSTALLED == yes ]]; then diagnose >&2 || true; fi
  if [[ ${KEEP:-} == 1 ]]; then
    printf '\nLeft running (KEEP=1). To look around:\n'
    say "source target/cluster/env"
    say "\$KUBECTL -n $NS get service,endpointslice,pod"
    say "make cluster-down       # removes all of it"
  else
    clean_up || code=1
  fi
  rm -rf "$WORK"
  [[ $code -ne 0 ]] || printf '\nEvery step was true; it took %s s.\n' "$((SECONDS - STARTED))"
  exit "$code"
}

diagnose() {
  printf '\n---- zen-lead\n'
  admin -n "$SYSTEM" get pod -o wide
  admin -n "$SYSTEM" get event --sort-by=.lastTimestamp | tail -n 10
  admin -n "$SYSTEM" logs -l app.kubernetes.io/name=zen-lead --prefix --tail=15
  printf -- '---- demo\n'
  admin -n "$NS" get service,endpointslice,pod -o wide
}

clean_up() {
  step "Cleaning up"
  if [[ $INSTALLED == yes ]]; then
    admin delete namespace "$NS" --ignore-not-found --timeout=60s >/dev/null
    admin delete -k deploy --ignore-not-found --timeout=60s >/dev/null
    say "the demo and zen-lead are gone"
  fi
  if [[ $CLUSTER_WAS_UP == no && ${KEEP_CLUSTER:-} != 1 ]]; then
    e2e/cluster.sh down | show
  fi
}

# ---- steps

cluster() {
  step "A Kubernetes cluster"
  if e2e/cluster.sh status >/dev/null 2>&1; then CLUSTER_WAS_UP=yes; fi
  e2e/cluster.sh up
  # shellcheck source=/dev/null
  . target/cluster/env
  [[ $CLUSTER_NODE == yes ]] || wrong "this cluster ($CLUSTER_KIND) has no node to run pods on; unset KUBEBUILDER_ASSETS"
  # Requests are sent from the node: there, ClusterIPs work.
  if [[ $CLUSTER_KIND == kind ]]; then
    ENTER=(docker exec "$CLUSTER_NODE_NAME")
  else
    read -r -a ENTER <<<"$CLUSTER_EXEC"
  fi
  run admin get nodes
}

install() {
  step "zen-lead, built and installed by kubectl apply -k deploy"
  local binary again=no
  binary=${BINARY:-$(scripts/static_build.sh)}
  say "$(basename "$binary"): $(stat -c %s "$binary") bytes, static"
  e2e/load_image.sh zen-lead:dev "$binary" | show
  if admin -n "$SYSTEM" get deployment zen-lead >/dev/null 2>&1; then again=yes; fi
  INSTALLED=yes
  admin apply -k deploy | grep -v unchanged | show
  # The tag stays the same: pods of an earlier run would keep the old binary.
  if [[ $again == yes ]]; then admin -n "$SYSTEM" rollout restart deployment zen-lead >/dev/null; fi
  admin -n "$SYSTEM" rollout status deployment zen-lead --timeout=120s | show
  [[ $(admin -n "$SYSTEM" get deployment zen-lead -o 'jsonpath={.status.readyReplicas}') == 2 ]] ||
    wrong "the two replicas are not ready"
  wait_for_bundle mutating
  wait_for_bundle validating
  wait_for_answer
  run admin -n "$SYSTEM" get pods
}

wait_for_bundle() {
  admin wait "$1webhookconfiguration/zen-lead" --timeout=30s \
    --for 'jsonpath={.webhooks[0].clientConfig.caBundle}' >/dev/null || wrong "zen-lead wrote no caBundle into the $1 webhook"
}

# Ready pods are reached through a ClusterIP, which kube-proxy programs a moment later.
wait_for_answer() {
  local tries
  for tries in {1..30}; do
    if admin create service clusterip probe --tcp=80 --dry-run=client -o yaml |
      admin annotate --local -f - zen-lead.io/enabled=false zen-lead.io/sticky=true -o yaml |
      admin create --dry-run=server -f - >"$WORK/out" 2>&1; then
      return
    fi
    sleep 1
  done
  show "$WORK/out"
  wrong "the webhook gave no answer in $tries tries"
}

demo_app() {
  step "An app of three pods and its Service"
  admin create namespace "$NS" --dry-run=client -o yaml | admin apply -f - >/dev/null
  alice apply -f - >/dev/null <<YAML
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: $DEMO_IMAGE
          imagePullPolicy: Never
          # Far longer than kube-proxy may hold new rules back (minSyncPeriod, 1 s).
          args: [-term-delay=10s]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
YAML
  alice rollout status deployment web --timeout=90s >/dev/null || wrong "the pods do not become ready"
  run alice get pods
}

# reviewed COMMAND...: repeats a command if the webhook did not answer within its one second, which
# happens on a busy machine.
reviewed() {
  local tries
  for tries in {1..5}; do
    if run "$@"; then return; fi
    grep -qF 'failed calling webhook' "$WORK/out" || return 1
    say "no answer within a second, once more ($tries)"
  done
  return 1
}

# soon COMMAND...: waits up to ten seconds until COMMAND succeeds; the next step checks the result.
soon() {
  for _ in {1..50}; do
    if "$@"; then return; fi
    sleep 0.2
  done
}

refusal() {
  step "A mistake is refused, and the message says what to write instead"
  if reviewed alice annotate service web zen-lead.io/enabled=true zen-lead.io/sticky=maybe zen-lead.io/min-ready-duraton=5s; then
    wrong "it was accepted"
  fi
  grep -qF 'zen-lead.io/sticky' "$WORK/out" || wrong "the refusal does not name sticky"
  grep -qF 'zen-lead.io/min-ready-duration' "$WORK/out" || wrong "the refusal does not name the intended key"
  [[ -z $(alice get service web -o 'jsonpath={.metadata.annotations.zen-lead\.io/enabled}') ]] || wrong "a part of the change was stored"
}

admission() {
  step "One annotation turns it on"
  reviewed alice annotate service web zen-lead.io/enabled=true
  alice wait --for=create service/web-leader --timeout=15s >/dev/null || wrong "no leader Service appears"
  run alice wait --for=condition=zen-lead.io/LeaderReady service/web-leader --timeout=15s || wrong "it does not become ready"
  run alice get services
  say "its slice, the lock between the replicas: exactly one pod"
  run alice get endpointslices -l kubernetes.io/service-name=web-leader \
    -o 'custom-columns=NAME:.metadata.name,MANAGED-BY:.metadata.labels.endpointslice\.kubernetes\.io/managed-by,POD:.endpoints[*].targetRef.name,READY:.endpoints[*].conditions.ready'
  [[ $(in_slice) != *' '* && -n $(in_slice) ]] || wrong "there is not exactly one pod in the slice: $(in_slice)"
}

in_slice() {
  admin -n "$NS" get endpointslices -l kubernetes.io/service-name=web-leader -o 'jsonpath={.items[*].endpoints[*].targetRef.name}'
}

requests() {
  step "Fifty requests to each Service"
  local name address answers
  for name in web web-leader; do
    address=$(admin -n "$NS" get service "$name" -o 'jsonpath={.spec.clusterIP}')
    # kube-proxy may not know it yet.
    soon "${ENTER[@]}" curl -s --max-time 10 -o /dev/null "http://$address/"
    # shellcheck disable=SC2016 # expanded by the inner shell
    "${ENTER[@]}" bash -c 'for i in {1..50}; do curl -s --max-time 10 "http://$0/" || echo failed; done' "$address" >"$WORK/$name"
    say "$name ($address) was answered by:"
    sort "$WORK/$name" | uniq -c | show
  done
  answers=$(sort -u "$WORK/web-leader")
  LEADER=$(in_slice)
  [[ $answers == "$LEADER" ]] || wrong "web-leader was not answered by $LEADER alone"
  [[ $(wc -l <"$WORK/web-leader") -eq 50 ]] || wrong "these are not fifty answers"
}

failover() {
  step "The leader is deleted while requests run"
  local address deleted pid before=$LEADER
  address=$(admin -n "$NS" get service web-leader -o 'jsonpath={.spec.clusterIP}')
  # A line for each request: the time of the answer in seconds since 1970, and the pod that answered.
  # One request after the other, each on a new connection.
  # shellcheck disable=SC2016 # expanded by the inner shell
  "${ENTER[@]}" bash -c '
    end=$((SECONDS + $1)) old=""
    while ((SECONDS < end)) || { ((SECONDS < end + 30)) && [[ $answer == "$old" ]]; }; do
      answer=$(curl -s --max-time 10 "http://$0/") || answer=failed
      [[ $old ]] || old=$answer
      echo "$EPOCHREALTIME $answer"
    done' "$address" "$LOAD" >"$WORK/load" &
  pid=$!
  sleep 2
  deleted=$EPOCHREALTIME
  run alice delete pod "$before" --wait=false
  wait "$pid" || wrong "the requests could not be sent"

  LEADER=$(in_slice)
  [[ -n $LEADER && $LEADER != "$before" && $LEADER != *' '* ]] || wrong "no other pod leads (the slice says: ${LEADER:-none})"
  summary "$deleted" "$before" "$LEADER" || wrong "see the line above"
}

# summary DELETED OLD NEW: what the client saw; fails if it is not one clean switch.
summary() {
  LC_ALL=C awk -v deleted="$1" -v old="$2" -v new="$3" '
    { requests++ }
    $2 == "failed" { failed++; next }
    $2 == old { last = $1; if (first) back++; next }
    $2 == new { if (!first) first = $1; next }
    { others++ }
    END {
      printf "   %d requests, %d of them failed\n", requests, failed
      printf "   last answer of %s, first of %s: %.0f ms apart\n", old, new, (first - last) * 1000
      printf "   the delete was sent %.0f ms before the first answer of the new leader\n", (first - deleted) * 1000
      if (!first || !last) { print "   one of the two never answered"; exit 1 }
      if (back) { printf "   the old leader answered %d times after the new one\n", back; exit 1 }
      if (others) { printf "   %d answers came from a third pod\n", others; exit 1 }
      if (failed) { printf "   the old pod serves for ten seconds more: no request had to fail\n"; exit 1 }
    }' "$WORK/load"
}

reported() { alice get events.events.k8s.io --field-selector=reason=LeaderChanged -o 'jsonpath={.items[*].note}' | grep -qF "to $LEADER"; }

story() {
  step "The switch as Kubernetes shows it"
  run alice wait --for=condition=zen-lead.io/LeaderReady service/web-leader --timeout=15s
  run alice get service web-leader \
    -o 'custom-columns=LEADER:.metadata.annotations.zen-lead\.io/current-leader,SINCE:.metadata.annotations.zen-lead\.io/leader-last-switch-time,EPOCH:.metadata.annotations.zen-lead\.io/leader-epoch,WHY:.metadata.annotations.zen-lead\.io/switch-reason'
  [[ $(alice get service web-leader -o 'jsonpath={.metadata.annotations.zen-lead\.io/current-leader}') == *"$LEADER" ]] ||
    wrong "the leader Service names another pod than its slice"
  soon reported
  run alice get events.events.k8s.io --field-selector=reason=LeaderChanged -o 'custom-columns=REASON:.reason,NOTE:.note'
  grep -qF "$LEADER" "$WORK/out" || wrong "no Event reports the switch"
}

metrics() {
  step "The metrics of both replicas"
  local pod address
  : >"$WORK/all"
  while read -r pod address; do
    "${ENTER[@]}" curl -s --max-time 5 "http://$address:8080/metrics" >"$WORK/metrics" || wrong "$pod does not answer with metrics"
    "$PROMTOOL" check metrics <"$WORK/metrics" >"$WORK/out" 2>&1 || { show "$WORK/out" && wrong "promtool found faults in the metrics of $pod"; }
    say "$pod"
    grep -E '^zen_lead_(failover_count_total|failover_latency_seconds_(sum|count)|leader_epoch|leader_stable|pods_available|webhook_requests_total|webhook_violations_total|build_info)' "$WORK/metrics" | show
    cat "$WORK/metrics" >>"$WORK/all"
  done < <(admin -n "$SYSTEM" get pods -l app.kubernetes.io/name=zen-lead --field-selector=status.phase=Running \
    -o 'jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{"\n"}{end}')
  at_least zen_lead_failover_count_total 2 "the first leader and the failover"
  at_least zen_lead_webhook_violations_total 2 "the two mistakes"
}

# at_least METRIC NUMBER WHAT: the sum over all replicas and labels.
at_least() {
  awk -v name="$1" -v least="$2" 'index($1, name "{") == 1 { sum += $NF } END { exit !(sum >= least) }' "$WORK/all" ||
    wrong "$1 does not count $3"
}

trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cluster
install
demo_app
refusal
admission
requests
failover
story
metrics
