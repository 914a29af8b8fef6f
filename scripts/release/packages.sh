#!/usr/bin/env bash
# Packs the binaries of a release for users of the command line, in DIR/files:
#
#   scripts/release/packages.sh DIR
#
# An archive for each binary in DIR/binaries, wheels for those of Linux, the manifest of the kubectl plugin (krew), and the
# notes of the release. Image and chart are made elsewhere.
set -euo pipefail
# shellcheck source=scripts/release/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

[[ $# -eq 1 ]] || die "usage: scripts/release/packages.sh DIR"
DIR=$1
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
pack() { "$RELEASE_HERE/pack.py" "$@"; }

# The README outside of the repository: links, the address to clone, and how to install this release.
readme() {
  grep -qx "There is no published image yet; build one:" "$ROOT/README.md" || die "README.md has another section on installation" \
    "change readme in scripts/release/packages.sh"
  INSTALL=$(install_commands) awk '/^There is no published image yet; build one:$/ { print ENVIRON["INSTALL"] "\n"; skip = 1 }
    /^zen-lead needs Kubernetes/ { skip = 0 }
    !skip' "$ROOT/README.md" |
    sed -E -e "s#\]\(([A-Za-z][A-Za-z/._-]*)([)\#])#](${DOCUMENTS}/\1\2#g" -e "s#<this repository>#$REPOSITORY#"
}

install_commands() {
  cat <<END
    helm install zen-lead oci://$REGISTRY/charts/zen-lead --version $VERSION --namespace zen-lead-system --create-namespace --wait

or

    kubectl apply -f $DOWNLOADS/install.yaml
END
}

archive() {
  local platform=$1 root=$WORK/archive-$1
  mkdir "$root"
  install -m 755 "$DIR/binaries/$platform/zen-lead" "$root/zen-lead"
  cp -r "$DIR/licenses/$platform" "$root/licenses"
  cp "$ROOT/LICENSE" "$root/LICENSE"
  readme >"$root/README.md"
  pack tgz "$DIR/files/zen-lead-$VERSION-$platform.tar.gz" "$SOURCE_DATE_EPOCH" "$root"
}

# wheel PLATFORM TAG: the binary needs no C library, so that it runs on every Linux; a wheel has to name which.
wheel() {
  local platform=$1 root=$WORK/wheel-$1 tags=() info
  IFS=. read -ra tags <<<"$2"
  info=$root/zen_lead-$VERSION.dist-info
  mkdir -p "$root/zen_lead-$VERSION.data/scripts" "$info/licenses" "$info/sboms"
  install -m 755 "$DIR/binaries/$platform/zen-lead" "$root/zen_lead-$VERSION.data/scripts/zen-lead"
  cp "$ROOT/LICENSE" "$info/licenses/LICENSE"
  cp -r "$DIR/licenses/$platform" "$info/licenses/third-party"
  cp "$DIR/sbom/$platform.cdx.json" "$info/sboms/zen-lead.cdx.json"
  {
    printf '%s\n' "Metadata-Version: 2.4" "Name: zen-lead" "Version: $VERSION" "Summary: $DESCRIPTION" \
      "License-Expression: Apache-2.0" "License-File: LICENSE" "Keywords: kubernetes,leader,failover,lint" \
      "Requires-Python: >=3.8" "Project-URL: Source, $REPOSITORY" "Project-URL: Documentation, $DOCUMENTS/docs/README.md" \
      "Project-URL: Changelog, $DOCUMENTS/CHANGELOG.md" "Description-Content-Type: text/markdown" ""
    readme
  } >"$info/METADATA"
  {
    printf '%s\n' "Wheel-Version: 1.0" "Generator: zen-lead ($VERSION)" "Root-Is-Purelib: false"
    printf 'Tag: py3-none-%s\n' "${tags[@]}"
  } >"$info/WHEEL"
  pack wheel "$DIR/files/zen_lead-$VERSION-py3-none-$2.whl" "$SOURCE_DATE_EPOCH" "$root"
}

krew() {
  local file platform
  cat <<END
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: zen-lead
spec:
  version: v$VERSION
  homepage: $REPOSITORY
  shortDescription: Explain and check leader Services
  description: |
    Lists the leader Services of zen-lead (status), explains which pod leads and why (explain), and checks
    manifests by the rules of its webhook, without a cluster (lint).
  platforms:
END
  for file in "$DIR/files/zen-lead-$VERSION-"*.tar.gz; do
    platform=${file##*/zen-lead-"$VERSION"-}
    platform=${platform%.tar.gz}
    cat <<END
    - selector:
        matchLabels: {os: ${platform%-*}, arch: ${platform#*-}}
      uri: $DOWNLOADS/${file##*/}
      sha256: $(sha256sum "$file" | cut -d' ' -f1)
      files:
        - {from: zen-lead, to: .}
        - {from: LICENSE, to: .}
      bin: zen-lead
END
  done
}

notes() {
  install_commands
  cat <<END

Alerts and dashboard, for the Prometheus operator: $DOWNLOADS/monitoring.yaml. How to check signatures:
$DOCUMENTS/docs/contributing/releasing.md#check-a-release

END
  "$RELEASE_HERE/notes.py" markdown "$VERSION" | sed -E "s#\b(docs/[a-z/-]+\.md)#[\1]($DOCUMENTS/\1)#g"
}

for binary in "$DIR"/binaries/*/zen-lead; do
  platform=$(basename "$(dirname "$binary")")
  archive "$platform"
  case $platform in
    linux-amd64) wheel "$platform" manylinux2014_x86_64.manylinux_2_17_x86_64.musllinux_1_1_x86_64 ;;
    linux-arm64) wheel "$platform" manylinux2014_aarch64.manylinux_2_17_aarch64.musllinux_1_1_aarch64 ;;
  esac
done
krew >"$DIR/files/krew.yaml"
notes >"$DIR/files/RELEASE_NOTES.md"
