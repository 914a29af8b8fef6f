#!/usr/bin/env bash
# Renders the chart into the files that are made from it: deploy/manifests, the objects in deploy/monitoring, the
# policy in deploy/components/without-webhook and the README of the chart (docs/decisions/chart-is-the-source.md).
#
#   scripts/render.sh           writes them
#   scripts/render.sh --check   fails if one of them differs from what the chart renders to
set -euo pipefail
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=e2e/lib/common.sh
. "$HERE/../e2e/lib/common.sh"
# shellcheck source=e2e/lib/build.sh
. "$HERE/../e2e/lib/build.sh"
# shellcheck source=scripts/common.sh
. "$HERE/common.sh"

CHART=deploy/chart
NAMESPACE=zen-lead-system
# The image that `make image` loads; kustomize puts another one in its place.
IMAGE_TAG=dev

# helm_template DIR [FLAG...]: one file in DIR for each template.
helm_template() {
  local dir=$1
  shift
  program_path helm4
  "$PROGRAM_PATH" template zen-lead "$ROOT/$CHART" --namespace "$NAMESPACE" --set "image.tag=$IMAGE_TAG" \
    --output-dir "$dir" "$@" >/dev/null
}

# Helm begins each document with a line that names the template; one line at the top of the file is enough. No blank
# lines at the end of a document.
tidy() {
  local source=$1 target=$2
  {
    say "# Made from $CHART/${source#*/zen-lead/} by scripts/render.sh. Change it there."
    say "#"
    sed -e '1{/^---$/d}' -e '/^# Source: /d' -e 's/[[:space:]]*$//' "$source" |
      awk '/^$/ { blank = 1; next } { if (blank && $0 != "---") print ""; blank = 0; print }'
  } >"$target"
}

# render TREE: the files below TREE.
render() {
  local tree=$1 file
  mkdir -p "$tree/deploy/manifests" "$tree/deploy/monitoring" "$tree/$CHART"
  helm_template "$WORK/main" --set namespace.create=true
  for file in "$WORK"/main/zen-lead/templates/*.yaml; do
    tidy "$file" "$tree/deploy/manifests/$(basename "$file")"
  done
  helm_template "$WORK/monitoring" --set monitoring.serviceMonitor.enabled=true,monitoring.rules.enabled=true \
    --set monitoring.dashboard.enabled=true
  for file in "$WORK"/monitoring/zen-lead/templates/monitoring/*.yaml; do
    tidy "$file" "$tree/deploy/monitoring/$(basename "$file")"
  done
  helm_template "$WORK/settings" --set webhook.enabled=false
  mkdir -p "$tree/deploy/components/without-webhook"
  tidy "$WORK/settings/zen-lead/templates/65-settings.yaml" "$tree/deploy/components/without-webhook/settings.yaml"
  program_path helm-docs
  # It reads charts below the current directory only, and ignores errors of its template at other log levels.
  (cd "$ROOT" && "$PROGRAM_PATH" --chart-search-root "$CHART" --dry-run --log-level warning) | sed -e 's/[[:space:]]*$//' |
    cat -s >"$tree/$CHART/README.md"
}

check=''
case ${1:-} in
  '') ;;
  --check) check=1 ;;
  *) die "usage: scripts/render.sh [--check]" ;;
esac
build_programs helm4 helm-docs
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
render "$WORK/tree"
mapfile -t made < <(cd "$WORK/tree" && find . -type f -printf '%P\n' | sort)
if [[ -z $check ]]; then
  for file in "${made[@]}"; do cp "$WORK/tree/$file" "$ROOT/$file"; done
  say "wrote ${#made[@]} files"
  exit
fi
for file in "${made[@]}"; do
  diff -u "$ROOT/$file" "$WORK/tree/$file" >"$WORK/diff" 2>&1 || {
    head -n 40 "$WORK/diff"
    die "$file is not what the chart renders to (- is the file, + the chart)" "change the chart and run: scripts/render.sh"
  }
done
# A file that no template makes any more would still be installed.
cd "$ROOT"
for file in deploy/manifests/*.yaml; do
  [[ -e $WORK/tree/$file ]] || die "$file is not made by the chart" "delete it, or add a template"
done
say "chart: ${#made[@]} files are as it renders them"
