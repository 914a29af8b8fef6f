#!/usr/bin/env bash
# cargo calls this instead of rustc (RUSTC_WRAPPER): our own crates get the counters that libFuzzer needs.
# The others are compiled as usual, so that existing builds are used.
#
#   fuzz/instrument.sh RUSTC ARGUMENT...
set -euo pipefail

case " $* " in
  *" --crate-name zen_lead "* | *" --crate-name zen_lead_core "* | *" --crate-name zen_lead_fuzz "*)
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
      -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
      -Cllvm-args=-sanitizer-coverage-pc-table \
      -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$@"
