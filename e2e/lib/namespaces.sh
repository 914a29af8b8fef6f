# shellcheck shell=bash
# The isolation of the local cluster: its own network, PID and mount namespace
# and cgroup. One process ("namespaces") holds them; when it ends, the kernel
# ends every other process of the cluster and removes its mounts, so nothing
# is left. Other files start the processes inside.

make_namespaces() {
  mkdir -p "$NODE_DIR"/{run,var-lib,var-log,bin,images}
  make_cgroups
  touch "$NETNS_FILE"
  unshare --net="$NETNS_FILE" true || component_failed namespaces "a network namespace was refused"
  ENTER=(nsenter --net="$NETNS_FILE" --)
  NODE_IP4=$NODE_IP4 NODE_IP6=$NODE_IP6 "${ENTER[@]}" \
    bash -euo pipefail -c "$(declare -f configure_network); configure_network" \
    >>"$LOG_DIR/namespaces.log" 2>&1 9>&- || component_failed namespaces "the network could not be set up"
  start_holder
}

# Runs inside the network namespace.
configure_network() {
  ip link set lo up
  sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
    net.ipv6.conf.default.accept_dad=0
  # The node's address must not be a loopback one: the kubelet refuses it.
  ip link add node0 type bridge
  ip link set node0 up
  ip address add "$NODE_IP4/24" dev node0
  # Without a default route, the first packet to a Service address is
  # "unreachable" before kube-proxy's rules see it.
  ip route add default dev node0
  # nodad: a bridge without ports has no carrier, so duplicate address detection
  # would never finish and the address never be used.
  ip -6 address add "$NODE_IP6/64" dev node0 nodad
  ip -6 route add default dev node0
}

start_holder() {
  local programs=() name
  for name in kubelet kube-proxy containerd containerd-shim-runc-v2; do
    program_path "$name"
    programs+=("$PROGRAM_PATH")
  done
  program_path pause
  cp "$PROGRAM_PATH" "$NODE_DIR/bin/pause"
  setsid nsenter --net="$NETNS_FILE" -- unshare --pid --mount --fork --mount-proc \
    bash "$E2E_DIR/lib/inside_node.sh" "$NODE_DIR" "${programs[@]}" \
    </dev/null >>"$LOG_DIR/namespaces.log" 2>&1 9>&- &
  local outer=$! pid
  disown "$outer"
  pid=$(wait_child "$outer") || component_failed namespaces "PID and mount namespaces were refused"
  record namespaces "$pid"
  await namespaces 15 "the node's mounts" test -e "$NODE_DIR/run/mounted"
}

# cgroup v1 has one tree per controller, v2 has one; the kubelet wants its root
# to exist in each of them.
cgroup_roots() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts; }

make_cgroups() {
  local root file controller
  while read -r root; do
    if [[ -e $root/cgroup.controllers ]]; then
      for controller in cpuset cpu io memory pids hugetlb; do
        echo "+$controller" >"$root/cgroup.subtree_control" 2>/dev/null || true
      done
    fi
    mkdir -p "$root/$CGROUP"
    # A new cpuset of v1 is empty and takes no process.
    for file in cpuset.mems cpuset.cpus; do
      [[ ! -e $root/cgroup.procs || -e $root/cgroup.controllers || ! -e $root/$file ]] ||
        cat "$root/$file" >"$root/$CGROUP/$file"
    done
  done < <(cgroup_roots)
}

remove_cgroups() {
  local root
  while read -r root; do
    [[ -d $root/$CGROUP ]] || continue
    wait_for 10 remove_cgroup_tree "$root/$CGROUP" || warn "  cgroup $root/$CGROUP cannot be removed"
  done < <(cgroup_roots)
}

# Children first; a cgroup whose processes are still dying is busy for a moment.
remove_cgroup_tree() {
  find "$1" -depth -type d -exec rmdir {} +
}

remove_namespaces() {
  stop namespaces 1
  remove_cgroups
  if is_mounted "$NETNS_FILE"; then
    umount "$NETNS_FILE" || umount --lazy "$NETNS_FILE"
  fi
  # Nothing is mounted below it on the machine. If that changes, an error is
  # better than deleting through a mount.
  if grep -qF " $NODE_DIR/" /proc/self/mounts; then
    die "there are still mounts below $NODE_DIR" "look at: grep $NODE_DIR /proc/self/mounts"
  fi
  rm -rf --one-file-system "$NODE_DIR"
}

is_mounted() { awk -v path="$1" '$2 == path { found = 1 } END { exit !found }' /proc/self/mounts; }
