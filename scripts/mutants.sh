#!/usr/bin/env bash
# Changes the core in small ways, one at a time, and tells which changes no test notices:
#
#   scripts/mutants.sh [--shard K/N] [cargo mutants' own options]
#
# Every mutant is a build of the library and a run of its unit tests and of a few walks of the model.
# What stays unnoticed is in target/mutants/mutants.out/missed.txt, and explained in
# docs/reliability.md. Fails when fewer than 80 % of the mutants that build are caught.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

WANTED=80 # percent

mutants=$(scripts/tool.sh cargo-mutants)
mkdir -p target/mutants
# In place, because a copy of the tree would begin with an empty target directory. The sources are
# put back after each mutant; a run that was killed leaves one behind, so it must be seen.
git diff --quiet -- src || die "src/ has changes that are not committed" \
  "mutants are made in place; commit or stash first"
restore() { git checkout --quiet -- src; }
trap restore EXIT

export ZEN_LEAD_MODEL_WALKS=${ZEN_LEAD_MODEL_WALKS:-40} ZEN_LEAD_MODEL_STATES=${ZEN_LEAD_MODEL_STATES:-1500}
# Not the tests that switch a rule off: they compare traces, which every change of behaviour changes.
code=0
"$mutants" mutants --in-place --output target/mutants --timeout 300 --cap-lints=true \
  --file 'src/decide/**' --file src/decide.rs --file 'src/spec/**' --file src/spec.rs \
  --file 'src/index/**' --file src/index.rs --file src/version.rs --file src/replica.rs \
  --file src/admission/verdict.rs --exclude '**/tests.rs' --exclude '**/tests/**' \
  "$@" -- --lib --test model -- --skip is_caught --skip are_caught --skip without_a_rule_fail || code=$?
# 2 says that some were missed, 3 that some ran into the time limit.
[[ $code -eq 0 || $code -eq 2 || $code -eq 3 ]] || die "cargo mutants ended with $code" "see above"

out=target/mutants/mutants.out
count() { wc -l <"$out/$1.txt"; }
caught=$(($(count caught) + $(count timeout))) missed=$(count missed)
all=$((caught + missed))
[[ $all -gt 0 ]] || { say "no mutant in this shard" && exit 0; }
say "mutants: $caught of $all caught ($((100 * caught / all)) %), $missed missed, $(count unviable) do not build"
[[ $((100 * caught)) -ge $((WANTED * all)) ]] || die "fewer than $WANTED % of the mutants are caught" \
  "write tests for what $out/missed.txt lists"
