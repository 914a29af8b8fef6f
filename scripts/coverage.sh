#!/usr/bin/env bash
# Runs `make test` once more with counters and prints the covered lines by file:
#
#   scripts/coverage.sh        also writes target/coverage/lcov.info
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

if ! [[ -x $(rustc --print target-libdir)/../bin/llvm-profdata ]]; then
  rustup component add llvm-tools >&2 || die "the component llvm-tools is missing" "rustup component add llvm-tools"
fi
tool=$(scripts/tool.sh cargo-llvm-cov)
PATH=$(dirname -- "$tool"):$PATH
export PATH
mkdir -p target/coverage
scripts/test.sh llvm-cov --locked --no-report
cargo llvm-cov report --lcov --output-path target/coverage/lcov.info
cargo llvm-cov report --summary-only
