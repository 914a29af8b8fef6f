#!/usr/bin/env bash
# Pushes image and chart of a release to a registry, and signs both and the checksums:
#
#   scripts/release/publish.sh DIR keyless|KEY|unsigned
#
# DIR was made by build.sh. KEY is a private key of cosign, keyless the identity of the workflow. The registry is REGISTRY,
# the one that the manifests name; PUSH_REGISTRY is another address, as in the rehearsal, where it may lack TLS. The user
# is already logged in to it. Prints what was pushed, with digests.
set -euo pipefail
# shellcheck source=scripts/release/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

[[ $# -eq 2 ]] || die "usage: scripts/release/publish.sh DIR keyless|KEY|unsigned"
DIR=$1 KEY=$2
PUSH_REGISTRY=${PUSH_REGISTRY:-$REGISTRY}
build_programs crane helm4
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
HELM_HOME=${HELM_HOME:-$WORK}

# On loopback there is no TLS.
plain=() insecure=()
if [[ $PUSH_REGISTRY == 127.0.0.1:* ]]; then
  plain=(--plain-http)
  insecure=(--allow-http-registry)
fi

digest=$(sed -n 's/^image .* \(sha256:[0-9a-f]*\)$/\1/p' "$DIR/digests")
image=$PUSH_REGISTRY/zen-lead
crane push "$DIR/image" "$image:$VERSION" >/dev/null 2>"$WORK/log" || die "the image was not pushed" "$(tail -n 3 "$WORK/log")"
pushed=$(crane digest "$image:$VERSION")
[[ $pushed == "$digest" ]] || die "the registry has $pushed, not $digest"

helm push "$DIR/files/zen-lead-$VERSION.tgz" "oci://$PUSH_REGISTRY/charts" "${plain[@]}" >"$WORK/log" 2>&1 ||
  die "the chart was not pushed" "$(tail -n 3 "$WORK/log")"
chart=$(crane digest "$PUSH_REGISTRY/charts/zen-lead:$VERSION")
say "image $image@$digest"
say "chart $PUSH_REGISTRY/charts/zen-lead@$chart"
[[ $KEY != unsigned ]] || exit 0

build_programs cosign
program_path cosign
cosign=$PROGRAM_PATH
case $KEY in
  # The transparency log is public; what the rehearsal signs does not belong there.
  keyless) how=(--yes) ;;
  *) how=(--yes --key "$KEY" --use-signing-config=false --tlog-upload=false) ;;
esac
for target in "$image@$digest" "$PUSH_REGISTRY/charts/zen-lead@$chart"; do
  "$cosign" sign "${how[@]}" "${insecure[@]}" "$target" >"$WORK/log" 2>&1 || die "cosign sign failed" "$(tail -n 5 "$WORK/log")"
done
"$cosign" sign-blob "${how[@]}" --bundle "$DIR/files/SHA256SUMS.sigstore.json" "$DIR/files/SHA256SUMS" >"$WORK/log" 2>&1 ||
  die "cosign sign-blob failed" "$(tail -n 5 "$WORK/log")"
say "signed: image, chart, SHA256SUMS"
