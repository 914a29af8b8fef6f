# shellcheck shell=bash
# Builds the cluster's programs from Go modules into a cache outside the
# checkout, once per version. Knows versions and build flags; other
# files run the programs.

# module  program  package; in the order in which they are needed.
PROGRAMS=(
  "kubernetes kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver"
  "etcd etcd go.etcd.io/etcd/server/v3"
  "kubernetes kubectl k8s.io/kubernetes/cmd/kubectl"
  "kubernetes kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager"
  "kubernetes kube-scheduler k8s.io/kubernetes/cmd/kube-scheduler"
  "kubernetes kubelet k8s.io/kubernetes/cmd/kubelet"
  "kubernetes kube-proxy k8s.io/kubernetes/cmd/kube-proxy"
  "containerd containerd github.com/containerd/containerd/v2/cmd/containerd"
  "containerd containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
  "containerd ctr github.com/containerd/containerd/v2/cmd/ctr"
  "prometheus promtool github.com/prometheus/prometheus/cmd/promtool"
  "prometheus prometheus github.com/prometheus/prometheus/cmd/prometheus"
  "kind kind sigs.k8s.io/kind"
  "vale vale github.com/vale-cli/vale/v3/cmd/vale"
  "kubeconform kubeconform github.com/yannh/kubeconform/cmd/kubeconform"
  "kube-score kube-score github.com/zegl/kube-score/cmd/kube-score"
  "actionlint actionlint github.com/rhysd/actionlint/cmd/actionlint"
  "helm3 helm3 helm.sh/helm/v3/cmd/helm"
  "helm3 helm-docs github.com/norwoodj/helm-docs/cmd/helm-docs"
  "helm3 helm-unittest github.com/helm-unittest/helm-unittest/cmd/helm-unittest"
  "helm4 helm4 helm.sh/helm/v4/cmd/helm"
  "argocd argocd-engine zen-lead.io/e2e/tools/argocd"
  "flux flux-apply zen-lead.io/e2e/tools/flux"
  "crane crane github.com/google/go-containerregistry/cmd/crane"
  "cosign cosign github.com/sigstore/cosign/v3/cmd/cosign"
  ". pause zen-lead.io/e2e/tools/pause"
  ". demo-app zen-lead.io/e2e/tools/demo-app"
  ". docker-archive zen-lead.io/e2e/tools/docker-archive"
  ". review-load zen-lead.io/e2e/tools/review-load"
  ". go-duration zen-lead.io/e2e/tools/go-duration"
)

# The programs of the local cluster. The prometheus server is not one of them:
# `e2e/cluster.sh build prometheus` builds it for the one test that needs it.
# Neither are those that `make lint` (vale, kubeconform, kube-score, actionlint, Helm), `make gitops` (argocd-engine,
# flux-apply) and `make release-dry-run` (crane, cosign) need.
# shellcheck disable=SC2034 # used by cluster.sh and kinds.sh
LOCAL_PROGRAMS=(kube-apiserver etcd kubectl kube-controller-manager kube-scheduler
  kubelet kube-proxy containerd containerd-shim-runc-v2 ctr promtool pause demo-app docker-archive review-load
  go-duration)

# The version of MODULE's main requirement, as its go.mod says.
module_version() {
  local path
  case $1 in
    kubernetes) path=k8s.io/kubernetes ;;
    etcd) path=go.etcd.io/etcd/server/v3 ;;
    containerd) path=github.com/containerd/containerd/v2 ;;
    prometheus) path=github.com/prometheus/prometheus ;;
    kind) path=sigs.k8s.io/kind ;;
    vale) path=github.com/vale-cli/vale/v3 ;;
    kubeconform) path=github.com/yannh/kubeconform ;;
    kube-score) path=github.com/zegl/kube-score ;;
    actionlint) path=github.com/rhysd/actionlint ;;
    helm3) path=helm.sh/helm/v3 ;;
    helm4) path=helm.sh/helm/v4 ;;
    argocd) path=github.com/argoproj/argo-cd/gitops-engine ;;
    flux) path=github.com/fluxcd/pkg/ssa ;;
    crane) path=github.com/google/go-containerregistry ;;
    cosign) path=github.com/sigstore/cosign/v3 ;;
    *) echo v0 && return ;;
  esac
  awk -v path="$path" '$1 == path { print $2 } $2 == path { print $3 }' \
    "$TOOLS_DIR/$1/go.mod" | grep -m1 '^v'
}

# The kubernetes programs report v0.0.0 without these, and so do their clients
# in the user agent (which the audit log shows).
link_flags() {
  local flags="-s -w" version package minor
  version=$(module_version "$1")
  case $1 in
    kubernetes)
      for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X $package.gitVersion=$version"
        flags+=" -X $package.gitMajor=$(cut -d. -f1 <<<"${version#v}")"
        flags+=" -X $package.gitMinor=$(cut -d. -f2 <<<"$version")"
      done ;;
    containerd) flags+=" -X github.com/containerd/containerd/v2/version.Version=$version" ;;
    prometheus) flags+=" -X github.com/prometheus/common/version.Version=${version#v}" ;;
    vale) flags+=" -X main.version=$version" ;;
    helm4) flags+=" -X helm.sh/helm/v4/internal/version.version=$version" ;;
    helm3)
      # The Kubernetes that it assumes without a cluster, as in its own Makefile; Helm 4 reads it from the build information.
      minor=$(awk '$1 == "k8s.io/client-go" { split($2, v, "."); print v[2] }' "$TOOLS_DIR/$1/go.mod")
      flags+=" -X helm.sh/helm/v3/internal/version.version=$version"
      for package in helm.sh/helm/v3/pkg/{chartutil,lint/rules}; do
        flags+=" -X $package.k8sVersionMajor=1 -X $package.k8sVersionMinor=$minor"
      done
      ;;
  esac
  printf %s "$flags"
}

build_tags() {
  case $1 in
    containerd) echo no_btrfs,no_devmapper,no_zfs,no_aufs ;;
    # Here they check rules and scrape fixed addresses; they need no clients of clouds.
    prometheus) echo remove_all_sd,enable_kubernetes_sd ;;
  esac
}

# vale reads comments with parsers written in C.
needs_cgo() { [[ $1 == vale ]]; }

# Everything that the content of a module's programs depends on: exact
# requirements, flags, the Go version, and for our own tools the sources.
module_key() {
  local dir=$TOOLS_DIR/$1 name=$1 hash file
  [[ $1 != . ]] || name=own
  hash=$({
    cat "$dir/go.mod"
    if [[ $1 == . ]]; then
      # Not those that are modules of their own.
      for file in "$dir"/*/main.go; do [[ -e ${file%/*}/go.mod ]] || cat "$file"; done
    else
      cat "$dir/go.sum"
      [[ ! -e $dir/main.go ]] || cat "$dir/main.go"
    fi
    link_flags "$1"
    build_tags "$1"
  } | sha256sum | cut -c1-12)
  printf '%s-%s-%s-%s' "$name" "$(module_version "$1")" "$(go env GOVERSION)" "$hash"
}

declare -A MODULE_DIR=()
# program_path NAME sets PROGRAM_PATH, the place of a built program. (It sets a
# variable instead of printing, so that the keys are computed once.)
program_path() {
  local entry module name
  for entry in "${PROGRAMS[@]}"; do
    read -r module name _ <<<"$entry"
    [[ $name == "$1" ]] || continue
    [[ -n ${MODULE_DIR[$module]:-} ]] || MODULE_DIR[$module]=$CACHE_DIR/bin/$(module_key "$module")
    PROGRAM_PATH=${MODULE_DIR[$module]}/$name
    return
  done
  die "no program is called $1"
}

need_go() {
  have go || die "the go command is missing; it builds the cluster's programs" \
    "install the Go version that e2e/tools/*/go.mod name, or set KUBEBUILDER_ASSETS"
}

# build_programs NAME...: builds the missing programs.
build_programs() {
  local name missing=() count=0
  need_go
  for name in "$@"; do
    program_path "$name"
    [[ -x $PROGRAM_PATH ]] || missing+=("$name")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  # The cluster lacks all of its programs or none.
  if [[ ${#missing[@]} -lt 5 ]]; then
    say "building ${missing[*]} into $CACHE_DIR/bin (once per version)"
  else
    say "building ${#missing[@]} programs of the cluster into $CACHE_DIR/bin (once per version;" \
      "all of them take $COLD_BUILD_TIME from nothing on two cores)"
  fi
  for name in "${missing[@]}"; do
    count=$((count + 1))
    build_program "$name" "$count of ${#missing[@]}"
  done
}
COLD_BUILD_TIME="about 20 minutes"

build_program() {
  local name=$1 position=$2 entry module package started=$SECONDS lock
  program_path "$name"
  for entry in "${PROGRAMS[@]}"; do
    read -r module _ package <<<"$entry"
    [[ $(cut -d' ' -f2 <<<"$entry") != "$name" ]] || break
  done
  mkdir -p "$CACHE_DIR/lock" "$(dirname "$PROGRAM_PATH")"

  # Two builds of one program at once would do the work twice and slow each other down.
  exec {lock}>"$CACHE_DIR/lock/$(basename "$(dirname "$PROGRAM_PATH")")"
  until flock -w 15 "$lock"; do
    say "  $name: another process is building it, waiting since $((SECONDS - started)) s"
  done
  if [[ ! -x $PROGRAM_PATH ]]; then
    compile "$module" "$name" "$package" "$position" "$started"
  fi
  exec {lock}>&-
}

# Under a temporary name first: a file with its final name is always complete.
compile() {
  local module=$1 name=$2 package=$3 position=$4 started=$5 pid next
  local partial=$PROGRAM_PATH.partial.$$ log cgo=0
  log=$(mktemp)
  if needs_cgo "$module"; then
    have cc || die "the command cc is missing; $name needs a C compiler" "install the package gcc"
    cgo=1
  fi
  (
    cd "$TOOLS_DIR/$module" || exit
    # Go's flags from the environment (-mod, -race ...) must not apply to these modules.
    GOFLAGS=-mod=readonly GOWORK=off CGO_ENABLED=$cgo exec nice go build -trimpath -buildvcs=false \
      -tags "$(build_tags "$module")" -ldflags "$(link_flags "$module")" -o "$partial" "$package"
  ) >"$log" 2>&1 </dev/null &
  pid=$!
  say "  $name ($position)"
  next=$((SECONDS + 15))
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    [[ $SECONDS -ge $next ]] || continue
    say "  $name ($position): building for $((SECONDS - started)) s"
    next=$((SECONDS + 15))
  done
  if ! wait "$pid"; then
    tail -n 30 "$log" >&2
    rm -f "$log" "$partial"
    die "building $name failed (see above)" "modules come from the Go module proxy (go env GOPROXY); is it reachable?"
  fi
  mv -f "$partial" "$PROGRAM_PATH"
  rm -f "$log"
  say "  $name ($position): built in $((SECONDS - started)) s"
}
