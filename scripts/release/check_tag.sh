#!/usr/bin/env bash
# Fails unless the tag fits the sources: the version of Cargo.toml and of the chart, and a section in CHANGELOG.md.
#
#   scripts/release/check_tag.sh vX.Y.Z
set -euo pipefail
# shellcheck source=scripts/release/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

[[ $# -eq 1 ]] || die "usage: scripts/release/check_tag.sh vX.Y.Z"
[[ $1 == "v$VERSION" ]] || die "the tag is $1, Cargo.toml has version $VERSION" "change one of the two"
grep -qx "version: $VERSION" "$ROOT/deploy/chart/Chart.yaml" || die "deploy/chart/Chart.yaml has another version than $VERSION"
RELEASE=true "$RELEASE_HERE/notes.py" markdown "$VERSION" >/dev/null
say "$1 fits the sources"
