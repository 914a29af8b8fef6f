# shellcheck shell=bash
# Keys, certificates and kubeconfigs of one cluster, created anew by every `up`.
# They are only below target/; no key is in the repository. manifests/ has the
# rights of the identities.

make_pki() {
  have openssl || die "openssl is missing" "install the package openssl"
  mkdir -p "$PKI_DIR"
  chmod 700 "$PKI_DIR"
  new_key ca
  openssl req -x509 -new -key "$PKI_DIR/ca.key" -subj /CN=zen-lead-test-ca -days 30 \
    -out "$PKI_DIR/ca.crt" 2>/dev/null
  new_key service-account
  openssl ec -in "$PKI_DIR/service-account.key" -pubout -out "$PKI_DIR/service-account.pub" 2>/dev/null

  new_cert apiserver /CN=kube-apiserver serverAuth \
    "IP:127.0.0.1,IP:::1,IP:$NODE_IP4,IP:$NODE_IP6,IP:10.96.0.1,IP:fd00:96::1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  new_cert admin /O=system:masters/CN=admin clientAuth
  # A plain user: for admission and authorization it is not the admin.
  new_cert alice /CN=alice clientAuth
  new_cert kube-controller-manager /CN=system:kube-controller-manager clientAuth
  new_cert kube-scheduler /CN=system:kube-scheduler clientAuth
  new_cert kube-proxy /CN=system:kube-proxy clientAuth
  new_cert kubelet "/O=system:nodes/CN=system:node:$NODE_NAME" clientAuth
  # With it the API server reads logs from the kubelet and runs commands there.
  new_cert kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
}

new_key() {
  openssl ecparam -name prime256v1 -genkey -noout -out "$PKI_DIR/$1.key" 2>/dev/null
}

# new_cert NAME SUBJECT USAGE [ALTERNATIVE-NAMES]
new_cert() {
  new_key "$1"
  openssl req -new -key "$PKI_DIR/$1.key" -subj "$2" -out "$PKI_DIR/$1.csr" 2>/dev/null
  {
    echo "keyUsage = critical, digitalSignature"
    echo "extendedKeyUsage = $3"
    [[ -z ${4:-} ]] || echo "subjectAltName = $4"
  } >"$PKI_DIR/$1.ext"
  openssl x509 -req -in "$PKI_DIR/$1.csr" -CA "$PKI_DIR/ca.crt" -CAkey "$PKI_DIR/ca.key" \
    -set_serial "0x$(openssl rand -hex 8)" -days 30 -extfile "$PKI_DIR/$1.ext" \
    -out "$PKI_DIR/$1.crt" 2>/dev/null
  rm -f "$PKI_DIR/$1.csr" "$PKI_DIR/$1.ext"
}

# new_kubeconfig FILE USER: everything inline, so that the file can be copied.
new_kubeconfig() {
  cat >"$1" <<EOF
apiVersion: v1
kind: Config
current-context: zen-lead
contexts: [{name: zen-lead, context: {cluster: zen-lead, user: $2}}]
clusters:
- name: zen-lead
  cluster:
    server: $API_URL
    certificate-authority-data: $(base64 -w0 "$PKI_DIR/ca.crt")
users:
- name: $2
  user:
    client-certificate-data: $(base64 -w0 "$PKI_DIR/$2.crt")
    client-key-data: $(base64 -w0 "$PKI_DIR/$2.key")
EOF
  chmod 600 "$1"
}

make_kubeconfigs() {
  local name
  new_kubeconfig "$CLUSTER_DIR/kubeconfig" admin
  new_kubeconfig "$CLUSTER_DIR/kubeconfig-user" alice
  for name in kube-controller-manager kube-scheduler kube-proxy kubelet; do
    new_kubeconfig "$PKI_DIR/$name.kubeconfig" "$name"
  done
}
