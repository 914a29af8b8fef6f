#!/usr/bin/env bash
# Uses a published release as a stranger would, and fails if something is not as promised:
#
#   scripts/release/verify.sh DIR
#
# It reads DIR/files, as downloads, and PUSH_REGISTRY, where publish.sh put image and chart. SIGNED is `keyless` or the file of
# a public key of cosign; without it signatures are not checked. It starts no cluster; on_cluster.sh installs the release on one.
set -euo pipefail
# shellcheck source=scripts/release/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

[[ $# -eq 1 ]] || die "usage: scripts/release/verify.sh DIR"
DIR=$(cd -- "$1" && pwd -P)
PUSH_REGISTRY=${PUSH_REGISTRY:-$REGISTRY}
build_programs crane helm4
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
HELM_HOME=$WORK/helm
plain=() insecure=()
if [[ $PUSH_REGISTRY == 127.0.0.1:* ]]; then
  plain=(--plain-http)
  insecure=(--allow-http-registry)
fi
image=$PUSH_REGISTRY/zen-lead
cat >"$WORK/service.yaml" <<'END'
apiVersion: v1
kind: Service
metadata:
  name: web
  annotations: {zen-lead.io/enabled: "true", zen-lead.io/stick: "true"}
spec: {selector: {app: web}, ports: [{port: 80}]}
END

# lints COMMAND...: this zen-lead refuses the misspelt key, and names the right one.
lints() {
  local status=0
  "$@" lint -f "$WORK/service.yaml" >"$WORK/out" 2>&1 || status=$?
  if [[ $status -ne 1 ]] || ! grep -q 'zen-lead.io/sticky' "$WORK/out"; then
    die "$* lint ended with $status" "$(cat "$WORK/out")"
  fi
}

# The binary of another machine runs by qemu, if this machine has it.
runner() {
  RUNNER=()
  case $(uname -m)-$1 in
    x86_64-amd64 | aarch64-arm64) ;;
    *)
      have "qemu-${MACHINE[$1]}" || return 1
      RUNNER=("qemu-${MACHINE[$1]}")
      ;;
  esac
}
declare -A MACHINE=([amd64]=x86_64 [arm64]=aarch64)

(cd "$DIR/files" && sha256sum --quiet --check SHA256SUMS) || die "a file has another checksum"
say "ok: checksums of $(wc -l <"$DIR/files/SHA256SUMS") files"

digest=$(grep -oE "image: $REGISTRY/zen-lead@sha256:[0-9a-f]{64}" "$DIR/files/install.yaml" | cut -d@ -f2)
crane manifest "$image@$digest" >"$WORK/index.json" || die "the registry has no image $digest, which install.yaml names"
for arch in $(jq -r '.manifests[].platform.architecture' "$WORK/index.json"); do
  crane config --platform "linux/$arch" "$image@$digest" >"$WORK/config.json"
  [[ $(jq -r '.config.User' "$WORK/config.json") == 65532:65532 ]] || die "the image for $arch does not name the user 65532"
  for label in version revision created source licenses; do
    [[ $(jq -r ".config.Labels[\"org.opencontainers.image.$label\"]" "$WORK/config.json") != null ]] || die "$arch: no label $label"
  done
  mkdir "$WORK/$arch"
  crane export --platform "linux/$arch" "$image@$digest" - | tar -xf - -C "$WORK/$arch"
  [[ -s $WORK/$arch/licenses/ring-$(awk '$1 == "ring" { print $2 }' "$WORK/$arch/licenses/index.txt" | tr -d :)/LICENSE ]] ||
    die "$arch: licence texts are missing"
  # The list of components has derive macros too, which run at build time only.
  unlisted=$(comm -23 <(sed 's/: .*//' "$WORK/$arch/licenses/index.txt" | sort) \
    <(jq -r '.metadata.component, .components[] | "\(.name) \(.version)"' "$WORK/$arch/sbom.cdx.json" | sort))
  [[ -z $unlisted ]] || die "$arch: not in the list of components: $(paste -sd, <<<"$unlisted" | cut -c1-200)"
  if runner "$arch"; then
    [[ $("${RUNNER[@]}" "$WORK/$arch/zen-lead" --version) == "zen-lead $VERSION" ]] || die "$arch: the binary has another version"
    lints "${RUNNER[@]}" "$WORK/$arch/zen-lead"
    say "ok: image for $arch: user, labels, licences, components; the binary runs${RUNNER[0]:+ by ${RUNNER[0]}}"
  else
    say "ok: image for $arch: user, labels, licences, components; not run, there is no qemu"
  fi
done

helm pull "oci://$PUSH_REGISTRY/charts/zen-lead" --version "$VERSION" "${plain[@]}" --destination "$WORK" >/dev/null 2>&1
cmp "$WORK/zen-lead-$VERSION.tgz" "$DIR/files/zen-lead-$VERSION.tgz" || die "the chart in the registry is another one"
helm template zen-lead "$WORK/zen-lead-$VERSION.tgz" --namespace zen-lead-system >"$WORK/rendered.yaml"
grep -qF "image: $REGISTRY/zen-lead@$digest" "$WORK/rendered.yaml" || die "the chart names another image than install.yaml"
say "ok: chart, by Helm from the registry; it names the same image as install.yaml"

case $(uname -m) in x86_64) here=amd64 ;; *) here=arm64 ;; esac
mkdir "$WORK/archive"
tar -xzf "$DIR/files/zen-lead-$VERSION-linux-$here.tar.gz" -C "$WORK/archive"
lints "$WORK/archive/zen-lead"
say "ok: archive for linux-$here"

python3 -m venv "$WORK/venv"
# The newest pip that the machine has picks the wheel for it; nothing is fetched.
"$WORK/venv/bin/pip" install --quiet --disable-pip-version-check --no-index --find-links "$DIR/files" zen-lead
lints "$WORK/venv/bin/zen-lead"
say "ok: wheel, by pip into a new environment"

if [[ -n ${SIGNED:-} ]]; then
  build_programs cosign
  program_path cosign
  how=(--key "$SIGNED" --insecure-ignore-tlog=true)
  [[ $SIGNED != keyless ]] || how=(
    --certificate-identity "$REPOSITORY/.github/workflows/release.yaml@refs/tags/v$VERSION"
    --certificate-oidc-issuer https://token.actions.githubusercontent.com
  )
  chart=$(crane digest "$PUSH_REGISTRY/charts/zen-lead:$VERSION")
  for target in "$image@$digest" "$PUSH_REGISTRY/charts/zen-lead@$chart"; do
    "$PROGRAM_PATH" verify "${how[@]}" "${insecure[@]}" "$target" >"$WORK/out" 2>&1 || die "the signature of $target is not valid" "$(tail -n 5 "$WORK/out")"
  done
  "$PROGRAM_PATH" verify-blob "${how[@]}" --bundle "$DIR/files/SHA256SUMS.sigstore.json" "$DIR/files/SHA256SUMS" >"$WORK/out" 2>&1 ||
    die "the signature of SHA256SUMS is not valid" "$(tail -n 5 "$WORK/out")"
  sed 's/^./x/' "$DIR/files/SHA256SUMS" >"$WORK/other"
  ! "$PROGRAM_PATH" verify-blob "${how[@]}" --bundle "$DIR/files/SHA256SUMS.sigstore.json" "$WORK/other" >"$WORK/out" 2>&1 ||
    die "the signature is accepted for other checksums too"
  say "ok: signatures of image, chart and checksums; changed checksums are refused"
fi
