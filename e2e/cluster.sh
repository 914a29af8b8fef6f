#!/usr/bin/env bash
# Starts, checks and removes the Kubernetes cluster of the integration and
# end-to-end tests:
#
#   e2e/cluster.sh up|down|status|build [PROGRAM...]
#
# README.md beside this file explains the kinds of cluster and the knobs. This
# file only decides what happens; lib/ does it.
set -euo pipefail
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
# shellcheck source=lib/build.sh
. "$HERE/lib/build.sh"
# shellcheck source=lib/procs.sh
. "$HERE/lib/procs.sh"
# shellcheck source=lib/pki.sh
. "$HERE/lib/pki.sh"
# shellcheck source=lib/namespaces.sh
. "$HERE/lib/namespaces.sh"
# shellcheck source=lib/control_plane.sh
. "$HERE/lib/control_plane.sh"
# shellcheck source=lib/node.sh
. "$HERE/lib/node.sh"
# shellcheck source=lib/environment.sh
. "$HERE/lib/environment.sh"
# shellcheck source=lib/kinds.sh
. "$HERE/lib/kinds.sh"
# shellcheck source=lib/health.sh
. "$HERE/lib/health.sh"

usage() {
  say "usage: e2e/cluster.sh up|down|status|build [PROGRAM...]"
  say "  up      start the cluster (or say that it runs) and write target/cluster/env"
  say "  down    remove it and everything it made"
  say "  status  show every component; exit code 0 only if all is well"
  say "  build   only build the programs of the local cluster, or those named"
}

main() {
  NODE_LIFECYCLE=${ZEN_LEAD_NODE_LIFECYCLE:-0}
  # The defaults of Kubernetes, except for the mode (iptables there).
  PROXY_MODE=${ZEN_LEAD_PROXY_MODE:-nftables} PROXY_MIN_SYNC=${ZEN_LEAD_PROXY_MIN_SYNC:-1s}
  case ${1:-} in
    up) lock && up ;;
    down) lock && down ;;
    status) status ;;
    build) build "${@:2}" ;;
    -h | --help | help) usage ;;
    *) usage >&2 && exit 2 ;;
  esac
}

# One up or down at a time for a checkout.
lock() {
  mkdir -p "$CHECKOUT/target"
  exec 9>"$CHECKOUT/target/.cluster.lock"
  flock -n 9 || {
    say "another up or down of this cluster is running, waiting for it"
    flock 9
  }
}

up() {
  local started=$SECONDS
  choose_kind
  "need_$KIND"
  if [[ -e $SETTINGS_FILE ]]; then
    if [[ $(<"$SETTINGS_FILE") == "$(settings)" ]] && healthy; then
      "env_$KIND"
      say "the cluster already runs; variables: source ${ENV_FILE#"$CHECKOUT/"}"
      return
    fi
    say "removing the rest of another cluster of this checkout"
    remove_all
  fi
  remove_all
  mkdir -p "$LOG_DIR" "$PID_DIR"
  settings >"$SETTINGS_FILE"
  say "starting the cluster (kind: $KIND)"
  "start_$KIND"
  "env_$KIND"
  say "the cluster is ready after $((SECONDS - started)) s; variables: source ${ENV_FILE#"$CHECKOUT/"}"
}

build() {
  if [[ $# -gt 0 ]]; then
    build_programs "$@"
  else
    build_programs "${LOCAL_PROGRAMS[@]}" && say "all programs of the local cluster are built"
  fi
}

down() {
  remove_all
  say "the cluster is gone"
}

# Everything that a running cluster depends on: if it changes, a new cluster is needed.
settings() {
  printf 'kind=%s node_lifecycle=%s id=%s proxy=%s,%s\n' "$KIND" "$NODE_LIFECYCLE" "$CLUSTER_ID" \
    "$PROXY_MODE" "$PROXY_MIN_SYNC"
  "programs_$KIND"
}

main "$@"
