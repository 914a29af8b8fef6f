#!/usr/bin/env bash
# Runs the model of the protocol (core/tests/model), with the core compiled with optimizations: the walks
# take a fifth of the time then. Checks for overflow and debug assertions stay on.
#
#   scripts/model.sh [OPTIONS OF THE TESTS]      for example: scripts/model.sh the_protocol_holds
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

exec cargo test --locked --package zen-lead-core --test model \
  --config profile.dev.package.zen-lead-core.opt-level=2 -- "$@"
