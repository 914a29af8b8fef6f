#!/usr/bin/env bash
# Writes the list of the components of the binary for TARGET, in the format CycloneDX:
#
#   scripts/release/sbom.sh OUT TARGET
#
# cargo-cyclonedx writes beside Cargo.toml, and names places of this machine; so it works on a copy of the sources, and
# the place of the copy is replaced. Given SOURCE_DATE_EPOCH it leaves out time and random number.
set -euo pipefail
# shellcheck source=scripts/release/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

[[ $# -eq 2 ]] || die "usage: scripts/release/sbom.sh OUT TARGET"
tool=$("$ROOT/scripts/tool.sh" cargo-cyclonedx)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
mkdir "$WORK/src"
(cd "$ROOT" && git ls-files -z -- '*.toml' Cargo.lock '*.rs' | tar --create --null --files-from=- --file=-) | tar -xf - -C "$WORK/src"
(cd "$WORK/src" && "$tool" cyclonedx --format json --spec-version 1.5 --target "$2" --no-build-deps \
  --override-filename sbom >"$WORK/log" 2>&1) || die "cargo cyclonedx failed" "$(tail -n 3 "$WORK/log")"
sed "s|$WORK/src|/src|g" "$WORK/src/sbom.json" >"$1"
! grep -qF "$WORK" "$1" || die "$1 names a place of this machine"
