#!/usr/bin/env bash
# Makes the image index of a release as an OCI layout in DIR/image, and prints only its digest on standard output:
#
#   scripts/release/image.sh DIR ARCH...
#
# ARCH is amd64 or arm64; the binary is DIR/binaries/linux-ARCH/zen-lead, the licence texts DIR/licenses/linux-ARCH, the
# list of components DIR/sbom/linux-ARCH.cdx.json. The image has no base: one layer with these files, a numeric user, no
# shell. crane assembles it in a registry on loopback that ends with this script. Nothing is published here.
set -euo pipefail
# shellcheck source=scripts/release/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

[[ $# -ge 2 ]] || die "usage: scripts/release/image.sh DIR ARCH..."
DIR=$1
shift
build_programs crane >&2
WORK=$(mktemp -d)
trap 'stop_registry; rm -rf "$WORK"' EXIT
start_registry "$WORK/registry.log"

# Labels of the image, and annotations of its manifest.
facts=(
  "org.opencontainers.image.title=zen-lead"
  "org.opencontainers.image.description=$DESCRIPTION"
  "org.opencontainers.image.licenses=Apache-2.0"
  "org.opencontainers.image.version=$VERSION"
  "org.opencontainers.image.revision=$REVISION"
  "org.opencontainers.image.created=$CREATED"
  "org.opencontainers.image.source=$REPOSITORY"
  "org.opencontainers.image.url=$REPOSITORY"
  "org.opencontainers.image.documentation=$DOCUMENTS/docs/README.md"
)

manifests=()
for arch in "$@"; do
  root=$WORK/$arch reference=$REGISTRY_ADDRESS/zen-lead:$arch options=()
  mkdir "$root"
  install -m 755 "$DIR/binaries/linux-$arch/zen-lead" "$root/zen-lead"
  cp -r "$DIR/licenses/linux-$arch" "$root/licenses"
  install -m 644 "$DIR/sbom/linux-$arch.cdx.json" "$root/sbom.cdx.json"
  # Time 0: a layer with the same files stays the same layer in the next release.
  "$RELEASE_HERE/pack.py" tar "$WORK/$arch.tar" 0 "$root"
  crane append --oci-empty-base --new_layer "$WORK/$arch.tar" --new_tag "$reference" >/dev/null 2>>"$WORK/log" ||
    die "crane append failed" "$(tail -n 3 "$WORK/log")"
  for fact in "${facts[@]}"; do options+=(--label "$fact" --annotation "$fact"); done
  crane mutate "$reference" --tag "$reference" --set-platform "linux/$arch" --user 65532:65532 --workdir / \
    --entrypoint /zen-lead --cmd serve "${options[@]}" >/dev/null 2>>"$WORK/log" ||
    die "crane mutate failed" "$(tail -n 3 "$WORK/log")"
  manifests+=(--manifest "$reference")
done
crane index append "${manifests[@]}" --tag "$REGISTRY_ADDRESS/zen-lead:index" >/dev/null 2>>"$WORK/log" ||
  die "crane index append failed" "$(tail -n 3 "$WORK/log")"

rm -rf "$DIR/image"
crane pull --format oci "$REGISTRY_ADDRESS/zen-lead:index" "$DIR/image" 2>>"$WORK/log"
crane digest "$REGISTRY_ADDRESS/zen-lead:index"
