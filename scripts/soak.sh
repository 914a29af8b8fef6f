#!/usr/bin/env bash
# What takes too long for every change, within SOAK_MINUTES (default 120), and what it found:
#
#   scripts/soak.sh
#
# A sixth of the time for larger small worlds, two for random walks; then what soak_faults.sh says,
# and the rest for all mutants of the core. Walks go on from seed SOAK_SEED (default: from the time of
# day, so that every run is new).
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

minutes=${SOAK_MINUTES:-120}
[[ $minutes =~ ^[1-9][0-9]*$ ]] || die "SOAK_MINUTES is '$minutes'" "give a number of minutes"
end=$((SECONDS + 60 * minutes))

step() { say "== $* ($(((end - SECONDS) / 60)) min left)"; }
# limited SECONDS COMMAND...: running out of time is no failure.
limited() {
  local code=0
  timeout --kill-after=30 "$@" || code=$?
  [[ $code -eq 0 || $code -eq 124 ]] || exit "$code"
}

step "building the model"
cargo test --locked --release --test model --no-run

step "small worlds, every state let come to rest"
ZEN_LEAD_MODEL_SOAK=1 ZEN_LEAD_MODEL_REST_OF=1 ZEN_LEAD_MODEL_STATES=5000000 \
  limited $((10 * minutes)) cargo test --locked --release --test model -- --nocapture small_worlds_hold

step "random walks"
seed=${SOAK_SEED:-$(($(date +%s) * 100))} rounds=0 walks_end=$((SECONDS + 20 * minutes))
while [[ $SECONDS -lt $walks_end ]]; do
  ZEN_LEAD_MODEL_FIRST=$((seed + 1000 * rounds)) ZEN_LEAD_MODEL_WALKS=1000 \
    cargo test --locked --release --quiet --test model -- --nocapture hold --skip small
  rounds=$((rounds + 1))
done
say "$((4 * 1000 * rounds)) walks of 300 moves from seed $seed"

step "faults on a real API server"
scripts/soak_faults.sh

step "mutants"
[[ $((end - SECONDS)) -gt 60 ]] && limited $((end - SECONDS)) scripts/mutants.sh
step "done"
