#!/usr/bin/env bash
# Makes an image of one static binary (its entry point, user 65532, nothing
# else inside) and puts it on the node of the running cluster:
#
#   e2e/load_image.sh NAME:TAG BINARY
#
# Pods use it with imagePullPolicy: Never. Clusters are started elsewhere.
set -euo pipefail
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
# shellcheck source=lib/build.sh
. "$HERE/lib/build.sh"

[[ $# -eq 2 ]] || die "usage: e2e/load_image.sh NAME:TAG BINARY"
image=$1 binary=$2
[[ $image == *:* ]] || die "$image has no tag" "write NAME:TAG; without a tag Kubernetes would try to pull :latest"
[[ -f $binary ]] || die "there is no file $binary"
[[ -r $ENV_FILE ]] || die "no cluster runs" "start one: e2e/cluster.sh up"
# shellcheck source=/dev/null
. "$ENV_FILE"
# shellcheck disable=SC2153 # from the file just read
[[ $CLUSTER_NODE == yes ]] || die "this cluster has no node that could run an image (kind: $CLUSTER_KIND)"

build_programs docker-archive
program_path docker-archive
archive=$(mktemp "${TMPDIR:-/tmp}/zen-lead-image.XXXXXX")
trap 'rm -f "$archive"' EXIT
"$PROGRAM_PATH" -image "$image" -binary "$binary" -out "$archive"

case $CLUSTER_KIND in
  local)
    # containerd's socket is for root only.
    as_root=()
    am_root || as_root=(sudo -n)
    "${as_root[@]}" env CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1 "$CTR" --address "$CONTAINERD_ADDRESS" \
      --namespace "$CONTAINERD_NAMESPACE" images import "$archive" >/dev/null
    ;;
  kind) "$KIND" load image-archive "$archive" --name "$KIND_NAME" ;;
esac
say "the node has $image"
