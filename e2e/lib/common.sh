# shellcheck shell=bash
# What all cluster scripts share: paths, the name of this cluster, messages.
# Nothing is started or stopped here.
#
# shellcheck disable=SC2034 # the variables are used by the files that source this one

E2E_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
CHECKOUT=$(dirname -- "$E2E_DIR")
TOOLS_DIR=$E2E_DIR/tools

# One name per checkout, so that two checkouts can run clusters side by side.
CLUSTER_ID=$(printf %s "$CHECKOUT" | sha256sum | cut -c1-8)

CLUSTER_DIR=$CHECKOUT/target/cluster  # for people and tests: env, logs, keys, pids
LOG_DIR=$CLUSTER_DIR/logs
PKI_DIR=$CLUSTER_DIR/pki
PID_DIR=$CLUSTER_DIR/run
ENV_FILE=$CLUSTER_DIR/env
SETTINGS_FILE=$CLUSTER_DIR/settings
AUDIT_LOG=$LOG_DIR/audit.log

CACHE_DIR=${ZEN_LEAD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/zen-lead}

# The node's own state lies outside the checkout: paths of unix sockets may have
# 107 bytes at most, and a checkout may lie on a file system without overlayfs.
NODE_DIR=/var/lib/zen-lead-$CLUSTER_ID
NETNS_FILE=$NODE_DIR/netns
CGROUP=zen-lead-$CLUSTER_ID

# These are inside the cluster's own network namespace and not visible on the
# machine, so they are the same for every cluster.
NODE_NAME=node-1
NODE_IP4=192.168.77.1
NODE_IP6=fd00:77::1
POD_RANGE4=10.244.0.0/24
POD_RANGE6=fd00:10:244::/64
SERVICE_RANGES=10.96.0.0/16,fd00:96::/108

PAUSE_IMAGE=zen-lead.local/pause:1
DEMO_IMAGE=zen-lead.local/demo-app:1

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }

# die MESSAGE...: one line for each message; the last ones say what to do.
die() {
  printf 'cluster: %s\n' "$1" >&2
  shift
  [[ $# -eq 0 ]] || printf '         %s\n' "$@" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }
am_root() { [[ $(id -u) -eq 0 ]]; }

# become_root WHY ARGUMENTS...: runs this script again by sudo, where sudo asks
# for no password (as on CI machines). Only what the scripts look at is passed on.
become_root() {
  local why=$1 name pass=()
  shift
  ! am_root || return 0
  if ! have sudo || ! sudo -n true 2>/dev/null; then
    die "$why needs root" "run it as root: sudo -E env \"PATH=\$PATH\" $0 $*" \
      "or set KUBEBUILDER_ASSETS (a control plane needs no root), or start a Docker engine for kind"
  fi
  for name in PATH HOME CI XDG_CACHE_HOME KUBEBUILDER_ASSETS GOMODCACHE GOCACHE GOPROXY \
    "${!ZEN_LEAD_@}"; do
    [[ -z ${!name:-} ]] || pass+=("$name=${!name}")
  done
  # sudo waits for the new script, which needs the lock that sudo would keep.
  exec sudo -n env "${pass[@]}" bash "$0" "$@" 9>&-
}

# wait_for SECONDS COMMAND...: polls ten times a second.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [[ $SECONDS -lt $deadline ]] || return 1
    sleep 0.1
  done
}
