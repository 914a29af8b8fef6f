#!/usr/bin/env bash
# Runs cargo's tests against the cluster of this checkout, which is started when it does not run:
#
#   scripts/test.sh CARGO-COMMAND...      for example: scripts/test.sh test --locked
#
# Cargo itself runs out here, where it can fetch and compile; only the test binaries run in the
# cluster's network, because $CLUSTER_EXEC is given to cargo as the target's runner.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

e2e/cluster.sh up
# shellcheck source=/dev/null
. target/cluster/env

# Replicas of two runs would serve each other's Services. Inherited by all that a run starts, so what
# a killed one left behind holds it too.
exec 9>>target/.tests.lock
flock --nonblock 9 || die "another test run uses the cluster of this checkout" \
  "wait for it; if it was killed, end the zen-lead processes it left (those that hold target/.tests.lock)"

host=$(rustc -vV | sed -n 's/^host: //p')
if [[ -n $CLUSTER_EXEC ]]; then
  runner=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$host")_RUNNER
  export "$runner=$CLUSTER_EXEC"
fi
exec cargo "$@"
