#!/usr/bin/env bash
# Prints a directory with JSON schemas of the kinds of each Kubernetes version in scripts/kubernetes.sum, one
# directory for each version, and makes them first if needed:
#
#   scripts/kubernetes_schemas.sh
#
# The Go module of each version is fetched (19 MB) and compared with its sum. Only the schemas are kept, 2 MB
# for each version, in the cache.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

sums=$ROOT/scripts/kubernetes.sum
converter=$ROOT/scripts/kubernetes_schemas.py
dir=$CACHE_DIR/schemas/$(cat "$sums" "$converter" | sha256sum | cut -c1-12)
WORK=''
trap '[[ -z $WORK ]] || rm -rf "$WORK"' EXIT

# The module cache of the user may have the version already; what is fetched does not stay in it, because an
# unpacked module has 130 MB. The sum is checked here, so no checksum database is asked.
fetch() {
  local version=$1 cache=$2 shared
  shared=$(go env GOMODCACHE)/cache/download
  (cd "$cache" && GOFLAGS=-modcacherw GOWORK=off GOMODCACHE=$cache GONOSUMDB=k8s.io/kubernetes \
    GOPROXY="file://$shared,$(go env GOPROXY)" go mod download -json "k8s.io/kubernetes@$version")
}

add() {
  local version=$1 sum=$2 answer found zip
  say "making the schemas of Kubernetes $version (once; fetches the Go module k8s.io/kubernetes)" >&2
  mkdir "$WORK/module" "$WORK/schemas/$version"
  answer=$(fetch "$version" "$WORK/module") || die "fetching k8s.io/kubernetes $version failed:" "$answer"
  { read -r found && read -r zip; } < <(python3 -c 'import json, sys
module = json.load(sys.stdin)
print(module["Sum"], module["Zip"], sep="\n")' <<<"$answer")
  [[ $found == "$sum" ]] ||
    die "k8s.io/kubernetes $version has the sum $found" "scripts/kubernetes.sum says $sum"
  "$converter" "$zip" "$WORK/schemas/$version"
  rm -rf "$WORK/module"
}

if [[ ! -d $dir ]]; then
  have go || die "the go command is missing; it fetches the API documents of Kubernetes"
  have python3 || die "the command python3 is missing; it makes schemas of the API documents of Kubernetes"
  mkdir -p "$CACHE_DIR/schemas"
  exec {lock}>"$CACHE_DIR/schemas/lock"
  flock "$lock"
fi
if [[ ! -d $dir ]]; then
  # On the file system of the cache, so that the last step is one rename.
  WORK=$(mktemp -d "$CACHE_DIR/schemas/partial.XXXXXX")
  mkdir "$WORK/schemas"
  while read -r module version sum; do
    [[ $module != k8s.io/kubernetes ]] || add "$version" "$sum"
  done <"$sums"
  mv "$WORK/schemas" "$dir"
fi
say "$dir"
