#!/usr/bin/env bash
# Makes the chart of a release, and from it the manifests for kubectl, in DIR/files:
#
#   scripts/release/manifests.sh DIR DIGEST
#
# DIGEST is that of the image index: chart and manifests name the image by it. The chart is deploy/chart with the values
# of the release (REPOSITORY, REGISTRY) in its defaults. The committed manifests (scripts/render.sh) name no registry.
set -euo pipefail
# shellcheck source=scripts/release/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

[[ $# -eq 2 && $2 =~ ^sha256:[0-9a-f]{64}$ ]] || die "usage: scripts/release/manifests.sh DIR sha256:DIGEST"
DIR=$1 DIGEST=$2
build_programs helm4
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
HELM_HOME=$WORK/helm
chart=$WORK/zen-lead
cp -r "$ROOT/deploy/chart" "$chart"

# set_value FILE LINE NEW: replaces the one line LINE, or fails; a default that has moved must not be lost.
set_value() {
  [[ $(grep -cxF -- "$2" "$1") -eq 1 ]] || die "${1#"$WORK"/} has no line, or several: $2" "change scripts/release/manifests.sh too"
  old=$2 new=$3 awk '$0 == ENVIRON["old"] { $0 = ENVIRON["new"] } { print }' "$1" >"$1.new" && mv "$1.new" "$1"
}
set_value "$chart/values.yaml" "  repository: zen-lead" "  repository: $REGISTRY/zen-lead"
set_value "$chart/values.yaml" '  digest: ""' "  digest: $DIGEST"
set_value "$chart/values.yaml" '  documentation: ""' "  documentation: $DOCUMENTS/docs"

set_value "$chart/README.md" "    helm install zen-lead deploy/chart --namespace zen-lead-system --create-namespace \\" \
  "    helm install zen-lead oci://$REGISTRY/charts/zen-lead --version $VERSION --namespace zen-lead-system \\"
set_value "$chart/README.md" "      --set image.repository=REGISTRY/zen-lead --set image.tag=TAG --wait" "      --create-namespace --wait"

prerelease=false
[[ $VERSION != *-* ]] || prerelease=true
indented() { sed 's/^/    /'; }
{
  say "home: $REPOSITORY"
  say "sources: [$REPOSITORY]"
  say "annotations:"
  say "  artifacthub.io/license: Apache-2.0"
  say "  artifacthub.io/category: networking"
  say "  artifacthub.io/prerelease: \"$prerelease\""
  say "  artifacthub.io/images: |"
  printf -- '- name: zen-lead\n  image: %s\n' "$REGISTRY/zen-lead@$DIGEST" | indented
  say "  artifacthub.io/links: |"
  printf -- '- name: %s\n  url: %s\n' documentation "$DOCUMENTS/docs/README.md" support "$DOCUMENTS/docs/support.md" | indented
  say "  artifacthub.io/changes: |"
  "$RELEASE_HERE/notes.py" artifacthub "$VERSION" | indented
} >>"$chart/Chart.yaml"

# Helm writes the times of the files into the archive.
find "$chart" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
helm lint --quiet "$chart" >"$WORK/out" 2>&1 || die "the chart of the release is not valid" "$(cat "$WORK/out")"
helm package "$chart" --destination "$DIR/files" >/dev/null
# The time of the archive becomes the one of the artifact in the registry.
touch -d "@$SOURCE_DATE_EPOCH" "$DIR/files/zen-lead-$VERSION.tgz"

# rendered FLAG...: the objects of the chart, without the lines that name templates, with links in the comments.
rendered() {
  say "# zen-lead $VERSION: $REPOSITORY"
  helm template zen-lead "$DIR/files/zen-lead-$VERSION.tgz" --namespace zen-lead-system "$@" |
    sed -E -e '/^# Source: /d' -e 's/[[:space:]]*$//' -e "/^ *#/ s#(^|[ (])(docs/[a-z/-]+\.md)#\1$DOCUMENTS/\2#g"
}
rendered --set namespace.create=true >"$DIR/files/install.yaml"
rendered --show-only 'templates/monitoring/*.yaml' \
  --set monitoring.serviceMonitor.enabled=true,monitoring.rules.enabled=true,monitoring.dashboard.enabled=true >"$DIR/files/monitoring.yaml"
grep -qF "image: $REGISTRY/zen-lead@$DIGEST" "$DIR/files/install.yaml" || die "install.yaml does not name the image by its digest"
! grep -qE 'runbook: ' "$DIR/files/monitoring.yaml" || die "monitoring.yaml has a runbook without a link"
