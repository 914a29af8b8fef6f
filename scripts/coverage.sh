#!/usr/bin/env bash
# Runs the tests of the workspace with counters, prints the covered lines by file, and fails if there are
# too few (`make test COVERAGE=1`):
#
#   scripts/coverage.sh        also writes target/coverage/lcov.info
#
# It counts src/ and core/src/ without their tests. Replicas that the tests start write their counters when
# they end normally; killed replicas do not count.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

# The least percentage of covered lines.
METRICS=95
CRATE=85
NOT_COUNTED='/src/(.*/)?(tests|testing|fixtures)(/|\.rs$)'

if ! [[ -x $(rustc --print target-libdir)/../bin/llvm-profdata ]]; then
  rustup component add llvm-tools >&2 || die "the component llvm-tools is missing" "rustup component add llvm-tools"
fi
tool=$(scripts/tool.sh cargo-llvm-cov)
PATH=$(dirname -- "$tool"):$PATH
export PATH
# Without debug information building and linking are faster; counters do not need it.
export CARGO_PROFILE_DEV_DEBUG=0
# Processes add their counters to a few files. With a file each, hundreds of replicas would fill the disk.
export LLVM_PROFILE_FILE_NAME='zen-lead-%8m.profraw'
mkdir -p target/coverage
scripts/test.sh llvm-cov --locked --no-report --workspace
cargo llvm-cov report --workspace --ignore-filename-regex "$NOT_COUNTED" --lcov --output-path target/coverage/lcov.info

awk -F: -v root="$ROOT/" -v metrics_bound="$METRICS" -v crate_bound="$CRATE" '
  function percent(hit, all) { return all ? 100 * hit / all : 0 }
  function check(what, hit, all, bound, share) {
    share = percent(hit, all)
    printf "%-24s %6.2f %%  %5d of %5d lines  (at least %d %%)\n", what, share, hit, all, bound
    if (share < bound) failed = 1
  }
  /^SF:/ { file = substr($0, 4); sub(root, "", file) }
  /^LF:/ { found = $2 }
  /^LH:/ { hit = $2 }
  /^end_of_record/ && file ~ /^(core\/)?src\// {
    printf "%-40s %6.2f %%  %5d of %5d lines\n", file, percent(hit, found), hit, found
    all_found += found; all_hit += hit
    if (file ~ /^src\/platform\/metrics(\.rs|\/)/) { metrics_found += found; metrics_hit += hit }
  }
  END {
    print ""
    check("covered in src/platform/metrics*:", metrics_hit, metrics_found, metrics_bound)
    check("covered in the crate:", all_hit, all_found, crate_bound)
    exit failed
  }
' target/coverage/lcov.info || die "too few lines are covered" \
  "add tests for the new code in the same change; lines without a hit: DA:LINE,0 in target/coverage/lcov.info"
