#!/usr/bin/env bash
# The long versions of the tests with faults on a real API server (tests/cluster), a part of
# `make soak`:
#
#   scripts/soak_faults.sh [MODULE...]      crash, replicas, partitions, restarts; all if none is given
#
# About 40 minutes for all on two cores. The head of each module explains its variables.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

# Longer than every timeout of zen-lead: a whole list may take four minutes.
export ZEN_LEAD_PARTITION_SECONDS=${ZEN_LEAD_PARTITION_SECONDS:-300}
export ZEN_LEAD_RESTARTS=${ZEN_LEAD_RESTARTS:-100}
export ZEN_LEAD_COMPACTIONS=${ZEN_LEAD_COMPACTIONS:-100}
export ZEN_LEAD_KILLS=${ZEN_LEAD_KILLS:-200}
export ZEN_LEAD_LAG_SECONDS=${ZEN_LEAD_LAG_SECONDS:-60}
export ZEN_LEAD_CRASH_TWICE=${ZEN_LEAD_CRASH_TWICE:-1}

[[ $# -gt 0 ]] || set -- crash replicas partitions restarts
for module in "$@"; do
  say "== $module, the long version"
  scripts/test.sh test --locked --test cluster -- "$module::"
done
