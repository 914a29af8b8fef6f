#!/usr/bin/env bash
# Runs cargo's tests against the cluster of this checkout, and starts it if it does not run:
#
#   scripts/test.sh CARGO-COMMAND...      for example: scripts/test.sh test --locked
#
# Cargo itself runs outside, where it can fetch and compile. Only the test binaries run in the cluster's
# network: cargo gets $CLUSTER_EXEC as the runner of the target.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

e2e/cluster.sh up
# shellcheck source=/dev/null
. target/cluster/env

# Replicas of two runs would serve each other's Services. All processes of a run inherit the lock, so the
# remaining processes of a killed run hold it too.
exec 9>>target/.tests.lock
flock --nonblock 9 || die "another test run uses the cluster of this checkout" \
  "wait for it; if it was killed, end the zen-lead processes it left (those that hold target/.tests.lock)"

host=$(rustc -vV | sed -n 's/^host: //p')
if [[ -n $CLUSTER_EXEC ]]; then
  runner=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$host")_RUNNER
  export "$runner=$CLUSTER_EXEC"
fi
exec cargo "$@"
