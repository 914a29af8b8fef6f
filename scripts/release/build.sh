#!/usr/bin/env bash
# Makes everything that a release publishes, in DIR:
#
#   scripts/release/build.sh DIR
#
# DIR/image is the image index, DIR/files what users download, DIR/digests one line for each of them. Nothing is
# published or signed here (publish.sh). MORE_BINARIES is a directory with binaries that were built elsewhere, as
# darwin-ARCH/zen-lead; they get archives. An architecture that this machine cannot build for is left out and named; with
# CI=true that is an error.
set -euo pipefail
# shellcheck source=scripts/release/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

[[ $# -eq 1 ]] || die "usage: scripts/release/build.sh DIR"
rm -rf "$1"
mkdir -p "$1"/{binaries,licenses,sbom,files}
DIR=$(cd -- "$1" && pwd -P)

declare -A MACHINE=([amd64]=x86_64 [arm64]=aarch64)

# Why this machine cannot build for MACHINE, or nothing.
obstacle() {
  [[ $1 != "$(uname -m)" ]] || return 0
  if ! have "$1-linux-gnu-gcc"; then
    say "the command $1-linux-gnu-gcc is missing"
  elif [[ ! -d $(rustc --print sysroot)/lib/rustlib/$1-unknown-linux-musl/lib ]] &&
    ! rustup target add "$1-unknown-linux-musl" >/dev/null 2>&1; then
    say "the Rust target $1-unknown-linux-musl cannot be had"
  fi
}

arches=()
for arch in amd64 arm64; do
  machine=${MACHINE[$arch]}
  reason=$(obstacle "$machine")
  if [[ -n $reason ]]; then
    [[ ${CI:-} != true ]] || die "no image for $arch: $reason"
    say "left out: $arch ($reason)"
    continue
  fi
  binary=$(scripts/static_build.sh --auditable --machine "$machine")
  install -D -m 755 "$binary" "$DIR/binaries/linux-$arch/zen-lead"
  # The same target also where a machine without musl links glibc: the crates are the same.
  scripts/release/licenses.py "$DIR/licenses/linux-$arch" "$machine-unknown-linux-musl"
  scripts/release/sbom.sh "$DIR/sbom/linux-$arch.cdx.json" "$machine-unknown-linux-musl"
  cp "$DIR/sbom/linux-$arch.cdx.json" "$DIR/files/zen-lead-linux-$arch.cdx.json"
  arches+=("$arch")
done

declare -A DARWIN=([darwin-amd64]=x86_64-apple-darwin [darwin-arm64]=aarch64-apple-darwin)
for binary in ${MORE_BINARIES:+"$MORE_BINARIES"/*/zen-lead}; do
  platform=$(basename "$(dirname "$binary")")
  [[ -n ${DARWIN[$platform]:-} ]] || die "MORE_BINARIES has $platform; there are: ${!DARWIN[*]}"
  install -D -m 755 "$binary" "$DIR/binaries/$platform/zen-lead"
  scripts/release/licenses.py "$DIR/licenses/$platform" "${DARWIN[$platform]}"
  scripts/release/sbom.sh "$DIR/sbom/$platform.cdx.json" "${DARWIN[$platform]}"
  cp "$DIR/sbom/$platform.cdx.json" "$DIR/files/zen-lead-$platform.cdx.json"
done

digest=$(scripts/release/image.sh "$DIR" "${arches[@]}")
scripts/release/manifests.sh "$DIR" "$digest"
scripts/release/packages.sh "$DIR"

# A name without a path, as users check it beside the downloaded files.
(cd "$DIR/files" && sha256sum -- * >"$DIR/sums" && mv "$DIR/sums" SHA256SUMS)
{
  say "image ${arches[*]} $digest"
  cat "$DIR/files/SHA256SUMS"
} >"$DIR/digests"
