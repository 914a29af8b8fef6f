#!/usr/bin/env bash
# Prints the path of a cargo tool at its pinned version, after installing it if need be:
#
#   scripts/tool.sh cargo-deny|cargo-audit|cargo-llvm-cov|cargo-mutants
#
# Built from source once per version into the cache (ZEN_LEAD_CACHE, else ~/.cache/zen-lead),
# outside the checkout and beside whatever versions the person has. Which tool is used for what is
# the Makefile's business.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

name=${1:?usage: scripts/tool.sh NAME}
case $name in
  cargo-deny) version=$CARGO_DENY_VERSION ;;
  cargo-audit) version=$CARGO_AUDIT_VERSION ;;
  cargo-llvm-cov) version=$CARGO_LLVM_COV_VERSION ;;
  cargo-mutants) version=$CARGO_MUTANTS_VERSION ;;
  *) die "no version of $name is pinned" "see scripts/common.sh" ;;
esac

dir=$CACHE_DIR/tools/$name-$version
if [[ ! -x $dir/bin/$name ]]; then
  mkdir -p "$CACHE_DIR/tools"
  exec {lock}>"$CACHE_DIR/tools/$name.lock"
  flock -n "$lock" || { say "$name is being built by another process, waiting" >&2 && flock "$lock"; }
fi
if [[ ! -x $dir/bin/$name ]]; then
  say "building $name $version into $dir (once; about 4 minutes on two cores)" >&2
  started=$SECONDS
  # A target directory of its own: the project's may be shared and locked.
  (cd "$ROOT" && env -u CARGO_TARGET_DIR nice cargo install --locked --quiet --root "$dir" "$name@$version") >&2 ||
    die "building $name $version failed (see above)"
  say "$name $version is built after $((SECONDS - started)) s" >&2
fi
say "$dir/bin/$name"
