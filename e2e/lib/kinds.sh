# shellcheck shell=bash
# The three kinds of cluster, each as the same few functions: need_KIND (check
# and build before anything starts), programs_KIND, start_KIND, env_KIND. Plus
# the functions for all of them: choose, health, status, removal. The steps
# themselves are in the other files.
#
# shellcheck disable=SC2034 # the variables set here are read by those files

# ZEN_LEAD_CLUSTER forces a kind. CI takes the local one, always the same.
choose_kind() {
  if [[ -n ${ZEN_LEAD_CLUSTER:-} ]]; then
    KIND=$ZEN_LEAD_CLUSTER
  elif [[ ${CI:-} == true ]]; then
    KIND=local
  elif [[ -n ${KUBEBUILDER_ASSETS:-} ]]; then
    KIND=assets
  elif docker_answers; then
    KIND=kind
  else
    KIND=local
  fi
  case $KIND in
    assets | kind | local) ;;
    *) die "ZEN_LEAD_CLUSTER=$KIND is not known" "use assets, kind or local" ;;
  esac
}

docker_answers() { have docker && timeout 10 docker info >/dev/null 2>&1; }

# ---- local: everything built from Go modules, with a real node

need_local() {
  # Builds run as the calling user, so that root leaves no files in the user's caches.
  build_programs "${LOCAL_PROGRAMS[@]}"
  become_root "the local cluster (namespaces, mounts, containers)" up
  need_node_packages
  local_variables
}

local_variables() {
  local name
  for name in KUBE_APISERVER ETCD KUBE_CONTROLLER_MANAGER KUBE_SCHEDULER CTR PROMTOOL; do
    program_path "$(tr 'A-Z_' 'a-z-' <<<"$name")"
    printf -v "$name" %s "$PROGRAM_PATH"
  done
  program_path kubectl
  KUBECTL_BIN=$PROGRAM_PATH
  CLUSTER_EXEC="nsenter --net=$NETNS_FILE --"
  # Entering needs root too. PATH is passed on because sudo has its own.
  [[ -z ${SUDO_UID:-} || $SUDO_UID == 0 ]] || CLUSTER_EXEC="sudo -n -E env PATH=$PATH $CLUSTER_EXEC"
  WHERE=net DATA_DIR=$NODE_DIR
  ETCD_PORT=2379 ETCD_PEER_PORT=2380 API_PORT=6443
  API_BIND=:: API_ADVERTISE=$NODE_IP4 API_URL=https://127.0.0.1:6443
}

programs_local() {
  local name
  for name in "${LOCAL_PROGRAMS[@]}"; do
    program_path "$name"
    echo "$PROGRAM_PATH"
  done
}

start_local() {
  make_pki
  make_kubeconfigs
  make_namespaces
  start_control_plane
  start_node
}

env_local() {
  write_kubectl_wrapper
  common_env
  program_path review-load
  write_env "${COMMON_ENV[@]}" CLUSTER_NODE=yes \
    "CLUSTER_NODE_NAME=$NODE_NAME" "CLUSTER_NODE_IP=$NODE_IP4" "CLUSTER_NODE_IP6=$NODE_IP6" \
    "DEMO_IMAGE=$DEMO_IMAGE" "CTR=$CTR" "REVIEW_LOAD=$PROGRAM_PATH" \
    "KUBE_PROXY_MODE=$PROXY_MODE" "KUBE_PROXY_MIN_SYNC=$PROXY_MIN_SYNC" \
    "CONTAINERD_ADDRESS=$NODE_DIR/run/containerd/containerd.sock" "CONTAINERD_NAMESPACE=k8s.io" \
    "KUBE_APISERVER=$KUBE_APISERVER" "ETCD=$ETCD" "ETCD_PORT=$ETCD_PORT" \
    "KUBE_CONTROLLER_MANAGER=$KUBE_CONTROLLER_MANAGER" "KUBE_SCHEDULER=$KUBE_SCHEDULER"
  # The user that called sudo reads the logs and the kubeconfigs.
  [[ -z ${SUDO_UID:-} ]] || chown -R "$SUDO_UID:${SUDO_GID:-0}" "$CLUSTER_DIR" "$CHECKOUT/target/.cluster.lock"
}

# ---- assets: a control plane of ready-made binaries, no node, no root

need_assets() {
  local name
  [[ -n ${KUBEBUILDER_ASSETS:-} ]] || die "KUBEBUILDER_ASSETS is not set" \
    "it is the directory that holds kube-apiserver, etcd and kubectl"
  for name in kube-apiserver etcd kubectl; do
    [[ -x $KUBEBUILDER_ASSETS/$name ]] || die "there is no $name in KUBEBUILDER_ASSETS ($KUBEBUILDER_ASSETS)"
  done
  build_programs promtool go-duration
  program_path promtool
  PROMTOOL=$PROGRAM_PATH
  KUBE_APISERVER=$KUBEBUILDER_ASSETS/kube-apiserver
  ETCD=$KUBEBUILDER_ASSETS/etcd
  KUBECTL_BIN=$KUBEBUILDER_ASSETS/kubectl
  # Not part of the usual assets; used if they are there.
  KUBE_CONTROLLER_MANAGER=$KUBEBUILDER_ASSETS/kube-controller-manager
  KUBE_SCHEDULER=$KUBEBUILDER_ASSETS/kube-scheduler
  CLUSTER_EXEC=
  WHERE=host DATA_DIR=$CLUSTER_DIR/data
  API_BIND=127.0.0.1 API_ADVERTISE=127.0.0.1
  [[ ! -r $CLUSTER_DIR/ports ]] || use_ports
}

programs_assets() { echo "$KUBEBUILDER_ASSETS"; }

# The machine's own loopback: free ports, kept for the life of the cluster.
use_ports() {
  read -r ETCD_PORT ETCD_PEER_PORT API_PORT <"$CLUSTER_DIR/ports"
  API_URL=https://127.0.0.1:$API_PORT
}

choose_ports() {
  local port ports=()
  for ((port = 20000 + 16#${CLUSTER_ID:0:3} * 3; ${#ports[@]} < 3; port++)); do
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || ports+=("$port")
  done
  echo "${ports[*]}" >"$CLUSTER_DIR/ports"
}

start_assets() {
  choose_ports
  use_ports
  make_pki
  make_kubeconfigs
  mkdir -p "$DATA_DIR"
  start_control_plane
}

env_assets() {
  write_kubectl_wrapper
  common_env
  write_env "${COMMON_ENV[@]}" CLUSTER_NODE=no "KUBE_APISERVER=$KUBE_APISERVER" "ETCD=$ETCD" \
    "ETCD_PORT=$ETCD_PORT"
}

# ---- kind: a Docker engine does the work

need_kind() {
  docker_answers ||
    die "no Docker engine answers (docker info)" "start one, or use ZEN_LEAD_CLUSTER=local as root"
  build_programs kind kubectl promtool demo-app docker-archive go-duration
  program_path kubectl
  KUBECTL_BIN=$PROGRAM_PATH
  program_path promtool
  PROMTOOL=$PROGRAM_PATH
  CLUSTER_EXEC=
  KIND_NAME=zen-lead-$CLUSTER_ID
}

programs_kind() {
  program_path kind
  echo "$PROGRAM_PATH"
}

start_kind() {
  echo "$KIND_NAME" >"$CLUSTER_DIR/kind-name"
  program_path kind
  ZEN_LEAD_NODE_LIFECYCLE=$NODE_LIFECYCLE "$E2E_DIR/setup_kind.sh" up "$KIND_NAME" "$PROGRAM_PATH" "$KUBECTL_BIN" "$CLUSTER_DIR" ||
    die "kind could not make the cluster (see above)"
  program_path demo-app
  env_kind
  "$E2E_DIR/load_image.sh" "$DEMO_IMAGE" "$PROGRAM_PATH"
}

env_kind() {
  write_kubectl_wrapper
  common_env
  program_path kind
  write_env "${COMMON_ENV[@]}" CLUSTER_NODE=yes "CLUSTER_NODE_NAME=$KIND_NAME-control-plane" \
    "DEMO_IMAGE=$DEMO_IMAGE" "KIND=$PROGRAM_PATH" "KIND_NAME=$KIND_NAME"
}
