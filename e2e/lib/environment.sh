# shellcheck shell=bash
# Writes target/cluster/env, which users and tests source, and the kubectl
# wrapper. The file has only variables that others may rely on; see README.md.

# write_env KEY=VALUE...: quoted, so that any value survives being sourced.
write_env() {
  local pair
  {
    echo "# Written by e2e/cluster.sh up; source it. README.md of e2e/ explains the variables."
    for pair in "$@"; do
      printf 'export %s=%q\n' "${pair%%=*}" "${pair#*=}"
    done
  } >"$ENV_FILE.new"
  mv -f "$ENV_FILE.new" "$ENV_FILE"
}

# A wrapper, so that kubectl works from inside and outside the cluster's network.
write_kubectl_wrapper() {
  mkdir -p "$CLUSTER_DIR/bin"
  {
    echo '#!/bin/sh'
    echo '# Runs kubectl in the network of the cluster; written by e2e/cluster.sh up.'
    # shellcheck disable=SC2016 # expanded by the wrapper
    printf 'KUBECONFIG="${KUBECONFIG:-%s}"\nexport KUBECONFIG\nexec %s %q "$@"\n' \
      "$CLUSTER_DIR/kubeconfig" "$CLUSTER_EXEC" "$KUBECTL_BIN"
  } >"$CLUSTER_DIR/bin/kubectl"
  chmod 755 "$CLUSTER_DIR/bin/kubectl"
}

# The variables of all kinds of cluster.
common_env() {
  local prometheus helm3 helm4
  program_path prometheus
  prometheus=$PROGRAM_PATH
  program_path helm3
  helm3=$PROGRAM_PATH
  program_path helm4
  helm4=$PROGRAM_PATH
  program_path go-duration
  # shellcheck disable=SC2034 # used by kinds.sh
  COMMON_ENV=(
    "CLUSTER_KIND=$KIND"
    "CLUSTER_DIR=$CLUSTER_DIR"
    "CLUSTER_EXEC=$CLUSTER_EXEC"
    "KUBECONFIG=$CLUSTER_DIR/kubeconfig"
    "KUBECONFIG_USER=$CLUSTER_DIR/kubeconfig-user"
    "KUBECTL=$CLUSTER_DIR/bin/kubectl"
    "KUBECTL_BIN=$KUBECTL_BIN"
    "PROMTOOL=$PROMTOOL"
    "PROMETHEUS=$prometheus"
    "HELM3=$helm3"
    "HELM4=$helm4"
    "GO_DURATION=$PROGRAM_PATH"
    "AUDIT_LOG=$AUDIT_LOG"
    "LOG_DIR=$LOG_DIR"
  )
}
