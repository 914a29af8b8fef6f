#!/usr/bin/env bash
# Runs the checks that take too long for every change, within SOAK_MINUTES (default 300), and prints the
# results:
#
#   scripts/soak.sh [STEP...]      all steps if none is given
#
# Each step is a function. The steps of the model take their share of the time. Fuzzing and the steps on a
# real API server take the time they need (about 200 minutes together), and the mutants take the rest.
# Walks start from seed SOAK_SEED (default: from the time of day, so that every run is new). For all steps in
# half an hour: SOAK_MINUTES=30 SOAK_SHORT=1. This also skips the separate release build; without it
# walks are several times slower.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

profile=release
if [[ -n ${SOAK_SHORT:-} ]]; then
  profile="test"
  export FUZZ_PROFILE=dev FUZZ_RUNS=100000 ZEN_LEAD_DURATIONS=1000000 ZEN_LEAD_ABUSE_ROUNDS=2
  export ZEN_LEAD_ROTATION_CALLS=2000 ZEN_LEAD_ROTATIONS=4 ZEN_LEAD_CA_GENERATIONS=1 ZEN_LEAD_COLD_STARTS=5
  export ZEN_LEAD_PARTITION_SECONDS=60 ZEN_LEAD_RESTARTS=5 ZEN_LEAD_COMPACTIONS=2 ZEN_LEAD_KILLS=10 ZEN_LEAD_LAG_SECONDS=10
  export ZEN_LEAD_TENANT_SECONDS=60 ZEN_LEAD_CRASH_TWICE=0 ZEN_LEAD_REST_SECONDS=60 ZEN_LEAD_CLUMSY_MINUTES=3 SAMPLE=200
fi
STEPS=(small_worlds random_walks fuzzing durations abuse tenants standing certificates faults rest clumsy gitops mutants)

minutes=${SOAK_MINUTES:-300}
[[ $minutes =~ ^[1-9][0-9]*$ ]] || die "SOAK_MINUTES is '$minutes'" "give a number of minutes"
end=$((SECONDS + 60 * minutes))
seed=${SOAK_SEED:-$(($(date +%s) * 100))}

# limited SECONDS COMMAND...: the end of the time is not a failure.
limited() {
  local code=0
  timeout --kill-after=30 "$@" || code=$?
  [[ $code -ne 124 && $code -ne 137 ]] || say "out of time after $1 s; what was done until then held"
  [[ $code -eq 0 || $code -eq 124 || $code -eq 137 ]] || exit "$code"
}

# A tenth of the time; the check at rest is done for every state.
small_worlds() {
  cargo test --locked --profile "$profile" --package zen-lead-core --test model --no-run
  ZEN_LEAD_MODEL_SOAK=1 ZEN_LEAD_MODEL_REST_OF=1 ZEN_LEAD_MODEL_STATES=5000000 \
    limited $((6 * minutes)) cargo test --locked --profile "$profile" --package zen-lead-core --test model -- --nocapture small_worlds_hold
}

# A fifth of the time.
random_walks() {
  local rounds=0 until=$((SECONDS + 12 * minutes))
  cargo test --locked --profile "$profile" --package zen-lead-core --test model --no-run
  while [[ $SECONDS -lt $until ]]; do
    ZEN_LEAD_MODEL_FIRST=$((seed + 1000 * rounds)) ZEN_LEAD_MODEL_WALKS=1000 \
      cargo test --locked --profile "$profile" --quiet --package zen-lead-core --test model -- --nocapture hold --skip small --skip inputs
    rounds=$((rounds + 1))
  done
  say "$((6 * 1000 * rounds)) walks of 300 moves from seed $seed"
}

# Ten million inputs for each of the three targets.
fuzzing() {
  FUZZ_PROFILE=${FUZZ_PROFILE:-release} FUZZ_RUNS=${FUZZ_RUNS:-10000000} scripts/fuzz.sh
}

# 20 million strings beside Go's own reading of them.
durations() {
  (cd e2e/tools && GOFLAGS=-mod=readonly GOWORK=off go build -o "$ROOT/target/go-duration" ./go-duration)
  GO_DURATION=$ROOT/target/go-duration ZEN_LEAD_DURATIONS=${ZEN_LEAD_DURATIONS:-20000000} ZEN_LEAD_DURATIONS_SEED=$seed \
    cargo test --locked --profile "$profile" --test durations
}

abuse() {
  ZEN_LEAD_ABUSE_ROUNDS=${ZEN_LEAD_ABUSE_ROUNDS:-10} scripts/test.sh test --locked --test cluster -- abuse::
}

# A hostile tenant for ten minutes.
tenants() {
  ZEN_LEAD_TENANT_SECONDS=${ZEN_LEAD_TENANT_SECONDS:-600} scripts/test.sh test --locked --test cluster -- tenant:: --nocapture
}

# Situations of the reported inputs that last for eleven minutes, all of them at once.
standing() {
  [[ -z ${SOAK_SHORT:-} ]] || { say "skipped: pauses need ten minutes to grow" && return; }
  ZEN_LEAD_STANDING_MINUTES=${ZEN_LEAD_STANDING_MINUTES:-11} scripts/test.sh test --locked --test cluster -- --test-threads 24 --nocapture inputs::
}

# 20,000 calls while certificates rotate, ten CAs that are replaced by age, and 50 starts from nothing.
certificates() {
  ZEN_LEAD_ROTATION_CALLS=${ZEN_LEAD_ROTATION_CALLS:-20000} ZEN_LEAD_ROTATIONS=${ZEN_LEAD_ROTATIONS:-20} \
    ZEN_LEAD_CA_GENERATIONS=${ZEN_LEAD_CA_GENERATIONS:-10} ZEN_LEAD_COLD_STARTS=${ZEN_LEAD_COLD_STARTS:-50} \
    scripts/test.sh test --locked --test cluster -- certificates::
}

# Crashes, partitions, restarts and lag, longer and more often.
faults() {
  scripts/soak_faults.sh
}

# Ten minutes in which nothing may be written.
rest() {
  ZEN_LEAD_REST_SECONDS=${ZEN_LEAD_REST_SECONDS:-600} scripts/test.sh test --locked --test cluster -- --nocapture rest::
}

# An hour of clumsy hands from new seeds; for a broken rule the seed and the shortest walk are printed.
clumsy() {
  ZEN_LEAD_CLUMSY_MINUTES=${ZEN_LEAD_CLUMSY_MINUTES:-60} ZEN_LEAD_CLUMSY_FIRST=$seed \
    scripts/test.sh test --locked --test cluster -- --nocapture clumsy::
}

# The libraries of Argo CD and Flux on a real cluster, with the image of this checkout.
gitops() { make --no-print-directory gitops; }

# The rest of the time.
mutants() {
  local left=$((end - SECONDS))
  [[ $left -gt 60 ]] || left=60
  MUTANTS_SECONDS=$left scripts/mutants.sh --sample "${SAMPLE:-1}"
}

[[ $# -gt 0 ]] || set -- "${STEPS[@]}"
for step in "$@"; do
  [[ " ${STEPS[*]} " == *" $step "* ]] || die "there is no step '$step'" "one of: ${STEPS[*]}"
  say "== $step ($(((end - SECONDS) / 60)) min left)"
  "$step"
done
