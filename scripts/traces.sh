#!/usr/bin/env bash
# Writes the traces of the model without its rules into docs/contributing/testing.md:
#
#   scripts/traces.sh
#
# core/tests/model compares the two; run this if a change of the decisions or of the model changed the
# traces.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

traces=target/model-traces
rm -rf "$traces" && mkdir -p "$traces"
ZEN_LEAD_MODEL_TRACES=$PWD/$traces scripts/model.sh caught
awk -v dir="$traces" '
  /^<!-- trace / { print; file = dir "/" $3 ".md"; while ((getline line < file) > 0) print line; skip = 1; next }
  /^<!-- end -->$/ { skip = 0 }
  !skip { print }
' docs/contributing/testing.md >"$traces/new" && cp "$traces/new" docs/contributing/testing.md
found=("$traces"/*.md)
say "docs/contributing/testing.md holds the traces of ${#found[@]} rules"
