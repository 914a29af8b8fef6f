#!/usr/bin/env bash
# Rehearses a release on this machine:
#
#   scripts/release/dry_run.sh [--rebuild]
#
# It makes everything twice and fails if a byte differs, publishes it to a registry on loopback, signs it with a key of
# its own, and uses it as a stranger would. --rebuild also compiles twice, the second time from nothing into another
# directory. Results are in target/release-dry-run. Nothing leaves this machine, except to fetch crates and tools.
set -euo pipefail
# shellcheck source=scripts/release/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

rebuild=''
case ${1:-} in
  '') ;;
  --rebuild) rebuild=1 ;;
  *) die "usage: scripts/release/dry_run.sh [--rebuild]" ;;
esac
for command in python3 jq git; do have "$command" || die "the command $command is missing"; done
OUT=$ROOT/target/release-dry-run
rm -rf "$OUT"
mkdir -p "$OUT"
trap stop_registry EXIT
build_programs crane helm4 cosign

say "-- zen-lead $VERSION, revision ${REVISION:0:12}, of $REPOSITORY, for $REGISTRY"
git diff --quiet HEAD -- || say "   (with changes that are not committed; the labels name the commit)"
say "-- first time"
scripts/release/build.sh "$OUT/first"
say "-- second time"
if [[ -n $rebuild ]]; then
  CARGO_TARGET_DIR=$OUT/rebuilt scripts/release/build.sh "$OUT/second"
else
  scripts/release/build.sh "$OUT/second"
fi
diff "$OUT/first/digests" "$OUT/second/digests" || die "the second time gave other bytes (see above)"
cat "$OUT/first/digests"
say "ok: the same bytes twice${rebuild:+, compiled twice}"

say "-- publish to a registry on loopback"
start_registry "$OUT/registry.log"
export PUSH_REGISTRY=$REGISTRY_ADDRESS/zen-lead
program_path cosign
(cd "$OUT" && COSIGN_PASSWORD='' "$PROGRAM_PATH" generate-key-pair >cosign.log 2>&1) || die "no key pair" "$(cat "$OUT/cosign.log")"
COSIGN_PASSWORD='' scripts/release/publish.sh "$OUT/first" "$OUT/cosign.key"

say "-- use it as a stranger"
SIGNED=$OUT/cosign.pub scripts/release/verify.sh "$OUT/first"
scripts/audit.sh "$OUT"/first/binaries/*/zen-lead >"$OUT/audit.log" 2>&1 || die "the binaries were not audited, or not clean" "$(tail -n 20 "$OUT/audit.log")"
say "ok: the binaries list their dependencies; no known vulnerability ($(grep -m1 '^advisories: ' "$OUT/audit.log"))"
