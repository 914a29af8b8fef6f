# shellcheck shell=bash
# Checks and removes a cluster of this checkout, of every kind and in every
# half-started state. It reads what `up` recorded, and must not depend on how the
# cluster would be started today.

# In the order in which they are started.
COMPONENTS=(namespaces etcd kube-apiserver kube-controller-manager kube-scheduler
  containerd kubelet kube-proxy)

# `up` wrote the wrapper, which enters the cluster's network.
recorded_kubectl() {
  [[ -x $CLUSTER_DIR/bin/kubectl ]] || return 1
  KUBECONFIG=$CLUSTER_DIR/kubeconfig timeout 15 "$CLUSTER_DIR/bin/kubectl" --request-timeout 10s "$@" 2>/dev/null 9>&-
}

recorded_components() {
  local name
  RECORDED=()
  for name in "${COMPONENTS[@]}"; do
    [[ ! -e $PID_DIR/$name.pid ]] || RECORDED+=("$name")
  done
}

# Every recorded component runs, the API server answers, every node is Ready.
healthy() {
  local name
  [[ -e $ENV_FILE ]] || return 1
  recorded_components
  for name in "${RECORDED[@]}"; do
    running "$name" || return 1
  done
  recorded_kubectl get --raw /readyz >/dev/null || return 1
  all_nodes_ready
}

# The node lifecycle controller, if it runs, correctly reports "hollow" as NotReady.
all_nodes_ready() {
  local nodes
  nodes=$(recorded_kubectl get nodes --no-headers) || return 1
  [[ -n $nodes ]] || return 1
  awk '$1 != "hollow" && $2 != "Ready" { bad = 1 } END { exit bad }' <<<"$nodes"
}

status() {
  local name
  if [[ ! -e $SETTINGS_FILE ]]; then
    say "no cluster of this checkout runs (e2e/cluster.sh up)"
    return 1
  fi
  head -n 1 "$SETTINGS_FILE"
  recorded_components
  for name in "${RECORDED[@]}"; do
    if running "$name"; then
      printf '  %-24s running, pid %s\n' "$name" "$RUNNING_PID"
    else
      printf '  %-24s NOT RUNNING, log: %s\n' "$name" "$LOG_DIR/$name.log"
    fi
  done
  recorded_kubectl version | sed -n 's/^/  /p' || say "  the API server does not answer"
  recorded_kubectl get nodes -o wide | sed 's/^/  /' || true
  if healthy; then
    say "healthy"
  else
    say "NOT healthy; e2e/cluster.sh up removes it and starts anew"
    return 1
  fi
}

# Works on any half-started cluster, and without a cluster.
remove_all() {
  local name index
  if [[ -r $CLUSTER_DIR/kind-name ]]; then
    build_programs kind
    program_path kind
    "$E2E_DIR/setup_kind.sh" down "$(<"$CLUSTER_DIR/kind-name")" "$PROGRAM_PATH"
  fi
  if [[ -e $NODE_DIR ]]; then
    become_root "removing the local cluster" down
    remove_namespaces
  fi
  # An assets cluster has no namespace whose end would end these processes.
  for ((index = ${#COMPONENTS[@]} - 1; index >= 0; index--)); do
    name=${COMPONENTS[index]}
    stop "$name"
  done
  rm -rf "$CLUSTER_DIR"
}
