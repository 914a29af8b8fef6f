# shellcheck shell=bash
# What the scripts here share: places, messages, the pinned versions of tools. No action.
#
# shellcheck disable=SC2034 # the variables are used by the files that source this one

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE_DIR=${ZEN_LEAD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/zen-lead}

CARGO_DENY_VERSION=0.20.2
CARGO_AUDIT_VERSION=0.22.2
CARGO_LLVM_COV_VERSION=0.9.1
CARGO_MUTANTS_VERSION=27.1.0

say() { printf '%s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# die MESSAGE...: one line a message; the last ones say what to do.
die() {
  printf 'zen-lead: %s\n' "$1" >&2
  shift
  [[ $# -eq 0 ]] || printf '          %s\n' "$@" >&2
  exit 1
}
