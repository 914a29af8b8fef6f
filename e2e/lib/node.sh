# shellcheck shell=bash
# The real node of the local cluster: containerd, its images, kubelet and
# kube-proxy, inside the namespaces that namespaces.sh made. Paths below /run
# and /var/lib are the node's own here (see inside_node.sh).

NODE_PACKAGES=(runc containernetworking-plugins nftables iptables iproute2 conntrack)

# Called before anything is started, so that nothing is left half-done.
need_node_packages() {
  local missing=() output
  have runc || missing+=(runc)
  [[ -x $(cni_dir)/ptp && -x $(cni_dir)/host-local ]] || missing+=(containernetworking-plugins)
  have nft || missing+=(nftables)
  have iptables || missing+=(iptables)
  have ip || missing+=(iproute2)
  have conntrack || missing+=(conntrack)
  [[ ${#missing[@]} -gt 0 ]] || return 0
  if ! am_root || ! have apt-get; then
    die "these programs of the node are missing: ${missing[*]}" \
      "on Debian or Ubuntu, as root: apt-get update && apt-get install --no-install-recommends ${NODE_PACKAGES[*]}"
  fi
  say "installing ${missing[*]}"
  output=$(DEBIAN_FRONTEND=noninteractive apt-get update -qq 2>&1 &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" 2>&1) ||
    die "installing ${missing[*]} failed:" "$(tail -n 5 <<<"$output")"
}

# Where Debian and others put the CNI plugins.
cni_dir() {
  local dir
  for dir in /usr/lib/cni /opt/cni/bin /usr/libexec/cni; do
    [[ ! -x $dir/ptp ]] || { echo "$dir" && return; }
  done
  echo /usr/lib/cni
}

start_node() {
  write_node_files
  start containerd node "$NODE_DIR/bin/containerd" --config "$NODE_DIR/run/containerd.toml"
  await containerd 30 "containerd to answer" ctr version
  load_own_images
  start kubelet node "$NODE_DIR/bin/kubelet" --config "$NODE_DIR/run/kubelet.yaml" \
    --kubeconfig "$NODE_DIR/run/kubelet.kubeconfig" --root-dir "$NODE_DIR/var-lib/kubelet" \
    --hostname-override "$NODE_NAME" --node-ip "$NODE_IP4,$NODE_IP6" \
    --node-labels topology.kubernetes.io/zone=zone-1
  start kube-proxy node "$NODE_DIR/bin/kube-proxy" --config "$NODE_DIR/run/kube-proxy.yaml"
  await kubelet 90 "the node to be Ready" node_ready
  await kube-proxy 60 "kube-proxy's rules for the API server" service_routed
}

node_ready() {
  [[ $(admin_kubectl get node "$NODE_NAME" \
    -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}') == True ]]
}

# Waits until the Service "kubernetes" answers: kube-proxy has written its first rules.
service_routed() {
  enter net
  "${ENTER[@]}" bash -c ': </dev/tcp/10.96.0.1/443' 9>&-
}

# containerd's socket can be reached from outside the namespaces too. Without the
# variable, every call on a machine with cgroup v1 says that v1 is deprecated.
ctr() { CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1 "$CTR" --address "$NODE_DIR/run/containerd/containerd.sock" --namespace k8s.io "$@"; }

load_own_images() {
  program_path pause
  load_image "$PAUSE_IMAGE" "$PROGRAM_PATH"
  program_path demo-app
  load_image "$DEMO_IMAGE" "$PROGRAM_PATH"
}

# load_image NAME:TAG BINARY
load_image() {
  local archive=$NODE_DIR/images/archive.$$.tar
  program_path docker-archive
  "$PROGRAM_PATH" -image "$1" -binary "$2" -out "$archive"
  ctr images import "$archive" >/dev/null || component_failed containerd "it refused the image $1"
  rm -f "$archive"
}

write_node_files() {
  local run=$NODE_DIR/run
  cp "$PKI_DIR/kubelet.kubeconfig" "$PKI_DIR/kube-proxy.kubeconfig" "$PKI_DIR/ca.crt" "$run/"
  # No pod gets a name server: there is none. An empty file would mean "use 127.0.0.1".
  echo "nameserver 192.0.2.53" >"$run/resolv.conf"
  mkdir -p "$run/cni" "$run/cni-bin"
  containerd_config >"$run/containerd.toml"
  cni_plugin >"$run/cni-bin/ptp-at-once"
  chmod 755 "$run/cni-bin/ptp-at-once"
  cni_config >"$run/cni/10-pods.conflist"
  kubelet_config >"$run/kubelet.yaml"
  kube_proxy_config >"$run/kube-proxy.yaml"
}

containerd_config() {
  cat <<EOF
version = 3
root = "$NODE_DIR/var-lib/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "$(snapshotter)"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "$PAUSE_IMAGE"
[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE, runc fails when it has to lower the score.
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/run/cni-bin", "$(cni_dir)"]
    conf_dir = "/run/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "$(command -v runc)"
      SystemdCgroup = false
EOF
}

# overlayfs if the file system supports it; otherwise whole copies, which are slower.
snapshotter() {
  local dir=$NODE_DIR/overlay-test
  mkdir -p "$dir"/{lower,upper,work,merged}
  if unshare --mount mount -t overlay overlay \
    -o "lowerdir=$dir/lower,upperdir=$dir/upper,workdir=$dir/work" "$dir/merged" 2>/dev/null; then
    echo overlayfs
  else
    echo native
  fi
  rm -rf "$dir"
}

# ptp and not bridge: every packet between pods passes the node's routing, so a
# Service answers a pod of the same node without br_netfilter.
cni_config() {
  cat <<EOF
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp-at-once", "ipMasq": false, "mtu": 1500, "ipam": {
    "type": "host-local", "dataDir": "/run/cni/addresses",
    "ranges": [[{"subnet": "$POD_RANGE4"}], [{"subnet": "$POD_RANGE6"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
EOF
}

# Duplicate address detection keeps a pod's IPv6 address unusable for a second
# or two, longer than it takes the pod to become Ready. No address is ever used
# twice here, so it is turned off before the plugin makes the interface.
cni_plugin() {
  cat <<EOF
#!/bin/sh
[ -z "\$CNI_NETNS" ] || nsenter --net="\$CNI_NETNS" sysctl -q -w net.ipv6.conf.default.accept_dad=0 </dev/null >&2
exec "$(cni_dir)/ptp"
EOF
}

# No eviction and no image collection: a developer's disk is often nearly full,
# and images cannot be pulled again.
kubelet_config() {
  cat <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
failCgroupV1: false
enforceNodeAllocatable: []
oomScoreAdj: 0
failSwapOn: false
localStorageCapacityIsolation: false
evictionHard: {memory.available: "1Mi", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
maxPods: 200
resolvConf: $NODE_DIR/run/resolv.conf
podLogsDir: /var/log/pods
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $NODE_DIR/run/ca.crt}
authorization: {mode: Webhook}
rotateCertificates: false
EOF
}

# Conntrack limits belong to the machine and are not changed.
kube_proxy_config() {
  cat <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: $PROXY_MODE
nftables: {minSyncPeriod: $PROXY_MIN_SYNC}
iptables: {minSyncPeriod: $PROXY_MIN_SYNC}
hostnameOverride: $NODE_NAME
clusterCIDR: "$POD_RANGE4,$POD_RANGE6"
clientConnection: {kubeconfig: $NODE_DIR/run/kube-proxy.kubeconfig}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
EOF
}
