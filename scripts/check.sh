#!/usr/bin/env bash
# What to run after each change: no Go, no cluster, no root, and under two minutes on two cores once the
# dependencies are built.
#
#   scripts/check.sh
#
# Prints the time of each step. `make lint` and `make test` check the rest.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

timings=()
step() {
  local name=$1 started=$SECONDS
  shift
  printf -- '-- %s\n' "$name"
  "$@"
  timings+=("$(printf '%4d s  %s' $((SECONDS - started)) "$name")")
}

cargo fmt --all --check || die "not formatted" "run: cargo fmt --all"
step "clippy" cargo clippy --locked --quiet --workspace --all-targets --all-features -- -D warnings
# The quickest first.
step "borders, router, manifests, options" cargo test --locked --quiet --package zen-lead \
  --test architecture --test router --test manifests --test configuration --test measurements
step "unit tests of the core" cargo test --locked --quiet --package zen-lead-core --lib
step "unit tests of zen-lead" cargo test --locked --quiet --package zen-lead --lib
step "the documented traces" cargo test --locked --quiet --package zen-lead-core --test model -- is_caught
# A few walks of each kind and shortened small worlds; `make test` runs them all.
export ZEN_LEAD_MODEL_WALKS=${ZEN_LEAD_MODEL_WALKS:-20} ZEN_LEAD_MODEL_STATES=${ZEN_LEAD_MODEL_STATES:-500}
step "a short model" cargo test --locked --quiet --package zen-lead-core --test model -- \
  --skip is_caught --skip are_caught --skip without_a_rule_fail
printf '%s\n' "${timings[@]}"
