#!/usr/bin/env bash
# Checks the dependencies against the RustSec advisories:
#
#   scripts/audit.sh             those in Cargo.lock
#   scripts/audit.sh BINARY...   those that a released binary lists itself (scripts/static_build.sh --auditable)
#
# The database is $ADVISORY_DB, or ../shared/advisory-db if that exists, or the live one. An old copy is
# used as it is; its date is printed. Exceptions and their reasons are only in deny.toml.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

db=${ADVISORY_DB:-}
[[ -n $db || ! -d ../shared/advisory-db ]] || db=../shared/advisory-db

mapfile -t exceptions < <(sed -n 's/^ *{ *id = "\(RUSTSEC-[0-9-]*\)".*/\1/p' deny.toml)
arguments=(--deny warnings)
for id in "${exceptions[@]}"; do arguments+=(--ignore "$id"); done
say "exceptions (reasons in deny.toml): ${exceptions[*]:-none}"

if [[ -n $db ]]; then
  [[ -d $db ]] || die "ADVISORY_DB is $db, which is not a directory"
  newest=$(find "$db/crates" -name 'RUSTSEC-*.md' -exec grep -hom1 '^date = "[0-9-]*"' {} + | sort | tail -n 1)
  say "advisories: $db, the newest of ${newest#date = }"
  arguments+=(--db "$db" --no-fetch --stale)
else
  say "advisories: the live database"
fi

audit=$(scripts/tool.sh cargo-audit)
if [[ $# -gt 0 ]]; then
  for binary in "$@"; do
    # Without the list, cargo audit would guess the dependencies from the messages of panics.
    readelf --section-headers --wide "$binary" | grep -qF .dep-v0 || die "$binary does not list its dependencies"
  done
  "$audit" audit "${arguments[@]}" bin "$@"
  exit
fi
"$audit" audit "${arguments[@]}"

# cargo-deny needs a git clone of the database, so it only runs if it may fetch one.
if [[ -z $db ]]; then
  deny=$(scripts/tool.sh cargo-deny)
  "$deny" --locked check advisories
fi
