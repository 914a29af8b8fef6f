#!/usr/bin/env bash
# Fuzzes the targets of fuzz/, each for FUZZ_SECONDS (default 20):
#
#   scripts/fuzz.sh [TARGET...]           all of them if none is given
#   scripts/fuzz.sh --keep [TARGET...]    also adds inputs that reached new code to fuzz/corpus, minimised
#
# FUZZ_RUNS=n: n inputs for each target instead. FUZZ_PROFILE=release compiles everything anew and runs
# faster, for long runs. Plain cargo with the pinned stable toolchain; cargo-fuzz works too
# (fuzz/README.md).
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

TARGETS=(review annotations duration)
seconds=${FUZZ_SECONDS:-20} profile=${FUZZ_PROFILE:-dev} keep=
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "FUZZ_SECONDS is '$seconds'" "give a number of seconds"
limit=-max_total_time=$seconds length="$seconds s"
if [[ -n ${FUZZ_RUNS:-} ]]; then
  [[ $FUZZ_RUNS =~ ^[1-9][0-9]*$ ]] || die "FUZZ_RUNS is '$FUZZ_RUNS'" "give a number of runs"
  limit=-runs=$FUZZ_RUNS length="$FUZZ_RUNS runs"
fi
if [[ ${1:-} == --keep ]]; then
  keep=1
  shift
fi
[[ $# -eq 0 ]] || TARGETS=("$@")
have c++ || die "the command c++ is missing; it compiles libFuzzer" "install the package g++"

case $profile in
  dev) dir=debug ;;
  release) dir=release ;;
  *) die "FUZZ_PROFILE is '$profile'" "take dev or release" ;;
esac
RUSTC_WRAPPER=$ROOT/fuzz/instrument.sh cargo build --locked --profile "$profile" \
  --manifest-path fuzz/Cargo.toml --target-dir target

# New inputs go to target/; the kept corpus and the recorded reviews are only read.
work=target/fuzz
for target in "${TARGETS[@]}"; do
  program=target/$dir/$target
  [[ -x $program ]] || die "there is no target $target" "there are: review annotations duration"
  mkdir -p "$work/$target" "fuzz/corpus/$target"
  seeds=("fuzz/corpus/$target")
  [[ $target != review ]] || seeds+=(tests/reviews)
  say "== $target, $length"
  if ! "$program" "$work/$target" "${seeds[@]}" "$limit" -max_len=65536 -timeout=10 \
    -rss_limit_mb=2048 -dict="fuzz/$target.dict" -artifact_prefix="$work/$target-" \
    -print_final_stats=1 -verbosity=1 2>"$work/$target.log"; then
    tail -n 40 "$work/$target.log" >&2
    die "the target $target failed; the input is named above" \
      "again: $program FILE    then: a unit test of it beside the code that is wrong"
  fi
  grep -E '^(Done|stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb))' "$work/$target.log" |
    tr '\n' ' ' && say ""
  if [[ -n $keep ]]; then
    rm -rf "$work/$target.kept" && mkdir "$work/$target.kept"
    "$program" -merge=1 -max_len=1024 "$work/$target.kept" "${seeds[@]}" "$work/$target" 2>>"$work/$target.log"
    # Only inputs up to 1 KiB: the corpus is in the repository.
    find "$work/$target.kept" -type f -size -2k -exec cp {} "fuzz/corpus/$target/" \;
    say "$(find "fuzz/corpus/$target" -type f | wc -l) inputs in fuzz/corpus/$target"
  fi
done
