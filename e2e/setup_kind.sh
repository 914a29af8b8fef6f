#!/usr/bin/env bash
# A cluster by kind, for machines with a Docker engine:
#
#   e2e/setup_kind.sh up NAME KIND_BINARY KUBECTL_BINARY CLUSTER_DIR
#   e2e/setup_kind.sh down NAME KIND_BINARY
#
# Called by cluster.sh, which chose this kind of cluster and built the programs.
# For tests it is the same as the local cluster: two address families, audit
# log, a plain user, the node "hollow".
set -euo pipefail
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)

main() {
  case ${1:-} in
    up) shift && up "$@" ;;
    down) "$3" delete cluster --name "$2" ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
  esac
}

up() {
  local name=$1 kind=$2 kubectl=$3 dir=$4
  # The node writes the audit log as root; here it is only read.
  mkdir -p "$dir/logs"
  config "$dir" >"$dir/kind.yaml"
  "$kind" create cluster --name "$name" --config "$dir/kind.yaml" \
    --kubeconfig "$dir/kubeconfig" --wait 180s
  "$kubectl" --kubeconfig "$dir/kubeconfig" apply -f "$HERE/manifests/users.yaml"
  "$kubectl" --kubeconfig "$dir/kubeconfig" apply -f "$HERE/manifests/hollow-node.yaml"
  "$kubectl" --kubeconfig "$dir/kubeconfig" apply --server-side --subresource=status \
    -f "$HERE/manifests/hollow-node.yaml"
  # The plugin or the controller may have tainted it before it had a status.
  "$kubectl" --kubeconfig "$dir/kubeconfig" taint node hollow node.kubernetes.io/not-ready- || true
  plain_user "$kubectl" "$dir"
}

config() {
  local controllers='*,bootstrap-signer-controller,token-cleaner-controller'
  local admission=''
  if [[ ${ZEN_LEAD_NODE_LIFECYCLE:-0} == 0 ]]; then
    controllers+=',-node-lifecycle-controller'
    admission=TaintNodesByCondition
  fi
  cat <<EOF
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {ipFamily: dual, kubeProxyMode: nftables}
nodes:
- role: control-plane
  extraMounts:
  - {hostPath: $HERE/manifests/audit-policy.yaml, containerPath: /etc/kubernetes/audit/policy.yaml, readOnly: true}
  - {hostPath: $1/logs, containerPath: /var/log/kubernetes-audit}
  kubeadmConfigPatches:
  - |
    kind: ClusterConfiguration
    apiServer:
      extraArgs:
      - {name: audit-policy-file, value: /etc/kubernetes/audit/policy.yaml}
      - {name: audit-log-path, value: /var/log/kubernetes-audit/audit.log}
      - {name: audit-log-maxsize, value: "100000"}
      - {name: disable-admission-plugins, value: "$admission"}
      extraVolumes:
      - {name: audit-policy, hostPath: /etc/kubernetes/audit, mountPath: /etc/kubernetes/audit, readOnly: true}
      - {name: audit-log, hostPath: /var/log/kubernetes-audit, mountPath: /var/log/kubernetes-audit}
    controllerManager:
      extraArgs:
      - {name: controllers, value: "$controllers"}
EOF
}

# The cluster itself signs alice's certificate.
plain_user() {
  local kubectl=$1 dir=$2 request
  openssl ecparam -name prime256v1 -genkey -noout -out "$dir/alice.key"
  request=$(openssl req -new -key "$dir/alice.key" -subj /CN=alice | base64 -w0)
  "$kubectl" --kubeconfig "$dir/kubeconfig" create -f - <<EOF
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: alice}
spec: {request: $request, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}
EOF
  "$kubectl" --kubeconfig "$dir/kubeconfig" certificate approve alice
  "$kubectl" --kubeconfig "$dir/kubeconfig" wait csr/alice --timeout 30s \
    --for 'jsonpath={.status.certificate}'
  "$kubectl" --kubeconfig "$dir/kubeconfig" get csr alice -o 'jsonpath={.status.certificate}' |
    base64 -d >"$dir/alice.crt"
  cp "$dir/kubeconfig" "$dir/kubeconfig-user"
  "$kubectl" --kubeconfig "$dir/kubeconfig-user" config set-credentials alice --embed-certs \
    --client-certificate "$dir/alice.crt" --client-key "$dir/alice.key"
  "$kubectl" --kubeconfig "$dir/kubeconfig-user" config set-context --current --user alice
  rm -f "$dir/alice.key" "$dir/alice.crt"
}

main "$@"
