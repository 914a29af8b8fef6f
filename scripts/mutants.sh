#!/usr/bin/env bash
# Changes the core in small ways, one at a time, and prints the changes that no test notices:
#
#   scripts/mutants.sh [--continue] [--sample N | --shard K/N] [cargo mutants' own options]
#
# Every mutant of the crate core/ is tested with its unit tests; those they miss with a few walks of the
# model, then with all unit tests of zen-lead. --sample takes one mutant in N, other ones with each commit.
# Mutants that stay unnoticed are in target/mutants/missed.txt; docs/contributing/testing.md explains them. It fails
# if fewer than 80 % of the mutants that build are caught (50 % in a sample, which is less exact).
# MUTANTS_SECONDS=n ends it early and counts the mutants so far; --continue goes on from there, for the
# same sources.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

WANTED=80 # percent
WANTED_OF_A_SAMPLE=50
SAMPLE_BELOW=100 # mutants

FILES=(core/src/decide.rs 'core/src/decide/**' core/src/settings.rs 'core/src/settings/**' core/src/index.rs
  'core/src/index/**' core/src/version.rs core/src/ranking.rs core/src/admission/verdict.rs)

mutants=$(scripts/tool.sh cargo-mutants)
# In place: a copy would begin with an empty target directory. The sources are restored after each mutant;
# a killed run leaves a mutant in the sources, so changes there must be visible.
git diff --quiet HEAD -- core/src || die "core/src/ has changes that are not committed" \
  "mutants are made in place; commit or stash first"
# Failures that property tests keep are caused by the mutant.
kept=
if [[ -e core/proptest-regressions ]]; then kept=1; fi
finish() {
  git checkout --quiet -- core/src
  [[ -n $kept ]] || rm -rf core/proptest-regressions
}
trap finish EXIT

again=()
if [[ ${1:-} == --continue ]]; then
  again=(--iterate)
  shift
fi
args=("$@")
if [[ ${1:-} == --sample ]]; then
  [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "--sample needs a number" "--sample 100: one mutant in a hundred"
  commit=$(git rev-parse --short=7 HEAD)
  args=(--shard "$((16#${commit:0:7} % $2))/$2" --sharding round-robin "${@:3}")
fi

seconds=${MUTANTS_SECONDS:-0} # for timeout, 0 is no limit
out=target/mutants
[[ ${#again[@]} -gt 0 ]] || rm -rf "$out"
mkdir -p "$out"

core() { timeout 400 nice cargo test --quiet --locked --package zen-lead-core "$@"; }

mutate() {
  local code=0
  # Fewer cases, and not the slowest test: mutants that they miss get all tests below. Failures are not
  # shortened, which takes up to a minute.
  PROPTEST_CASES=32 PROPTEST_MAX_SHRINK_ITERS=0 nice timeout --signal=INT --kill-after=60 "$seconds" \
    "$mutants" mutants --in-place --package zen-lead-core --output "$out" --colors never --no-times \
    --baseline skip --cargo-arg=--lib --timeout 60 --build-timeout 300 "$@" -- \
    -- --skip nothing_is_left_of_services_that_went || code=$?
  # 2 means that some were missed, 3 that some reached their time limit.
  [[ $code -eq 0 || $code -eq 2 || $code -eq 3 || $code -eq 124 ]] || die "cargo mutants ended with $code" "see above"
}
# "DIFF NAME" of each mutant that was missed.
missed_diffs() {
  python3 -c 'import json, sys
for outcome in json.load(open(sys.argv[1]))["outcomes"]:
    if outcome["summary"] == "MissedMutant":
        print(outcome["diff_path"], outcome["scenario"]["Mutant"]["name"])' "$out/mutants.out/outcomes.json"
}
# Adds the results of a run to those of earlier ones.
keep() {
  local outcome
  for outcome in caught timeout unviable; do
    sort -u -o "$out/$outcome.txt" -- <(cat "$out/$outcome.txt" "$out/mutants.out/$outcome.txt" 2>/dev/null)
  done
}
# count OUTCOME...: a mutant that once reached its time limit may have been caught since.
count() { (cd "$out" && sort -u -- "${@/%/.txt}" | wc -l); }

files=(--exclude '**/tests.rs' --exclude '**/tests/**')
for file in "${FILES[@]}"; do files+=(--file "$file"); done
# The tests of the model, and the baseline: without a mutant they must pass.
export ZEN_LEAD_MODEL_WALKS=${ZEN_LEAD_MODEL_WALKS:-40} ZEN_LEAD_MODEL_STATES=${ZEN_LEAD_MODEL_STATES:-1500}
# Without the tests that switch a rule off: they compare traces, which every change of behaviour changes.
walks=(--test model -- --skip is_caught --skip are_caught --skip without_a_rule_fail)
{ core --lib && core "${walks[@]}"; } >"$out/baseline.txt" 2>&1 ||
  die "the tests of the core fail without any mutant" "see $out/baseline.txt"
keep
mutate "${files[@]}" "${again[@]}" "${args[@]}"
keep

# One by one, by its diff: by name cargo mutants would take other mutants too.
: >"$out/missed.txt"
late=0
while read -r diff mutant; do
  file=${mutant%%:*}
  # Its header has the change in the place where git expects a file.
  sed "0,/^+++ /s|^+++ .*|+++ $file|" "$out/mutants.out/$diff" | git apply -p0
  if { core "${walks[@]}" && timeout 400 nice cargo test --quiet --locked --package zen-lead --lib; } >"$out/again.txt" 2>&1 </dev/null; then
    say "$mutant" | tee -a "$out/missed.txt"
  else
    late=$((late + 1))
  fi
  git checkout --quiet -- core/src
done < <(missed_diffs)

missed=$(wc -l <"$out/missed.txt")
caught=$(($(count caught timeout) + late))
all=$((caught + missed))
[[ $all -gt 0 ]] || { say "no mutant in this shard" && exit 0; }
say "mutants: $caught of $all caught ($((100 * caught / all)) %), $missed missed, $(count unviable) do not build"
wanted=$WANTED
[[ $all -ge $SAMPLE_BELOW ]] || wanted=$WANTED_OF_A_SAMPLE
[[ $((100 * caught)) -ge $((wanted * all)) ]] || die "fewer than $wanted % of the mutants are caught" \
  "write tests for what $out/missed.txt lists"
