# shellcheck shell=bash
# etcd, kube-apiserver, kube-controller-manager and kube-scheduler, and the
# objects every cluster starts with. The same for a cluster with a node and for
# one made of KUBEBUILDER_ASSETS; nodes belong in node.sh.

# Expects WHERE (see enter), ETCD_PORT, ETCD_PEER_PORT, API_PORT, API_BIND,
# API_ADVERTISE and DATA_DIR.
start_control_plane() {
  start_etcd
  start_apiserver
  start_controllers
  make_first_objects
}

start_etcd() {
  local url=http://127.0.0.1:$ETCD_PORT peer=http://127.0.0.1:$ETCD_PEER_PORT
  # The data need not survive a power cut, and syncing dominates write latency.
  start etcd "$WHERE" "$ETCD" --data-dir "$DATA_DIR/etcd" --unsafe-no-fsync \
    --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
    --initial-cluster "default=$peer" --quota-backend-bytes 8589934592 --log-level warn
}

start_apiserver() {
  # shellcheck disable=SC2054 # the comma is part of a value
  local args=(
    --etcd-servers "http://127.0.0.1:$ETCD_PORT"
    --bind-address "$API_BIND" --secure-port "$API_PORT"
    # The address behind the Service "kubernetes"; pods cannot reach a loopback one.
    --advertise-address "$API_ADVERTISE"
    --service-cluster-ip-range "$SERVICE_RANGES"
    --authorization-mode Node,RBAC
    --allow-privileged
    --client-ca-file "$PKI_DIR/ca.crt"
    --tls-cert-file "$PKI_DIR/apiserver.crt" --tls-private-key-file "$PKI_DIR/apiserver.key"
    --service-account-issuer https://kubernetes.default.svc.cluster.local
    --service-account-key-file "$PKI_DIR/service-account.pub"
    --service-account-signing-key-file "$PKI_DIR/service-account.key"
    --kubelet-client-certificate "$PKI_DIR/kubelet-client.crt"
    --kubelet-client-key "$PKI_DIR/kubelet-client.key"
    --kubelet-preferred-address-types InternalIP
    --audit-policy-file "$E2E_DIR/manifests/audit-policy.yaml"
    # One file, never rotated: tests count its lines.
    --audit-log-path "$AUDIT_LOG" --audit-log-maxsize 100000
    --cert-dir "$DATA_DIR/apiserver"
    --profiling=false
  )
  # The plugin taints every new node as not ready, and only the node lifecycle
  # controller would take that taint away.
  [[ $NODE_LIFECYCLE == 1 ]] || args+=(--disable-admission-plugins TaintNodesByCondition)
  # Only loopback: the Service "kubernetes" gets no address, because it is not used.
  [[ $API_ADVERTISE != 127.* ]] || args+=(--endpoint-reconciler-type none)
  start kube-apiserver "$WHERE" "$KUBE_APISERVER" "${args[@]}"
  await etcd 30 "etcd to listen" tcp_open "$ETCD_PORT"
  await kube-apiserver 90 "the API server to be ready" admin_kubectl get --raw /readyz
}

start_controllers() {
  [[ -x ${KUBE_CONTROLLER_MANAGER:-} ]] || return 0
  # Pods on the node "hollow" have no kubelet: the node lifecycle controller would
  # call them NotReady and evict them.
  local controllers='*,-node-lifecycle-controller'
  [[ $NODE_LIFECYCLE == 0 ]] || controllers='*'
  # Every controller has its own service account, as in a real cluster; otherwise
  # admission would take garbage collection for the admin.
  start kube-controller-manager "$WHERE" "$KUBE_CONTROLLER_MANAGER" \
    --kubeconfig "$PKI_DIR/kube-controller-manager.kubeconfig" \
    --use-service-account-credentials --leader-elect=false --profiling=false \
    --controllers "$controllers" --terminated-pod-gc-threshold 0 \
    --root-ca-file "$PKI_DIR/ca.crt" \
    --cluster-signing-cert-file "$PKI_DIR/ca.crt" --cluster-signing-key-file "$PKI_DIR/ca.key" \
    --service-account-private-key-file "$PKI_DIR/service-account.key" \
    --cert-dir "$DATA_DIR/kube-controller-manager"
  [[ -x ${KUBE_SCHEDULER:-} ]] || return 0
  start kube-scheduler "$WHERE" "$KUBE_SCHEDULER" \
    --kubeconfig "$PKI_DIR/kube-scheduler.kubeconfig" --leader-elect=false --profiling=false \
    --cert-dir "$DATA_DIR/kube-scheduler"
}

make_first_objects() {
  admin_kubectl apply -f "$E2E_DIR/manifests/users.yaml" >/dev/null ||
    component_failed kube-apiserver "the first objects were refused"
  make_hollow_node || component_failed kube-apiserver "the node hollow was refused"
  if running kube-controller-manager; then
    # Pods are refused in a namespace that has no default service account yet.
    await kube-controller-manager 60 "the default service account" \
      admin_kubectl get serviceaccount default --namespace default
  else
    admin_kubectl create serviceaccount default --namespace default >/dev/null 2>&1 || true
    # No controller fills the aggregated role "edit" here; these are its parts.
    local role
    for role in system:aggregate-to-edit system:aggregate-to-view; do
      admin_kubectl create clusterrolebinding "e2e-alice-${role#system:}" --clusterrole "$role" --user alice >/dev/null
    done
  fi
}

# The status has to be written by itself: `apply` leaves a subresource out.
make_hollow_node() {
  local manifest=$E2E_DIR/manifests/hollow-node.yaml
  admin_kubectl apply -f "$manifest" >/dev/null &&
    admin_kubectl apply --server-side --subresource=status -f "$manifest" >/dev/null
}

admin_kubectl() {
  enter "$WHERE"
  "${ENTER[@]}" "$KUBECTL_BIN" --kubeconfig "$CLUSTER_DIR/kubeconfig" --request-timeout 10s "$@" 9>&-
}

tcp_open() {
  enter "$WHERE"
  # shellcheck disable=SC2016 # expanded by the inner shell
  "${ENTER[@]}" bash -c ': <"/dev/tcp/127.0.0.1/$1"' _ "$1"
}
