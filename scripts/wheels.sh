#!/usr/bin/env bash
# Prints the directory with the programs of scripts/requirements.txt, and installs them first if needed:
#
#   scripts/wheels.sh
#
# They are installed once for each content of that file, into the cache, beside what the user has installed.
# Ends with status 3, without a message of pip, where they cannot be installed at all: no pip, or no wheel for
# this machine.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

requirements=$ROOT/scripts/requirements.txt
dir=$CACHE_DIR/tools/wheels-$(sha256sum "$requirements" | cut -c1-12)

supported() {
  case $(uname -sm) in
    "Linux x86_64" | "Linux aarch64" | "Darwin arm64") ;;
    *) return 1 ;;
  esac
  have python3 && python3 -m pip --version >/dev/null 2>&1
}

install() {
  local partial=$dir.partial
  say "fetching $(grep -o '^[a-z-]*==[0-9.]*' "$requirements" | paste -sd' ') from PyPI into $dir (once)" >&2
  rm -rf "$partial"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps \
    --only-binary=:all: --require-hashes --target "$partial" --requirement "$requirements" >&2 ||
    die "pip could not install scripts/requirements.txt (see above)"
  mv "$partial" "$dir"
}

if [[ ! -d $dir ]]; then
  supported || exit 3
  mkdir -p "$CACHE_DIR/tools"
  exec {lock}>"$CACHE_DIR/tools/wheels.lock"
  flock "$lock"
  [[ -d $dir ]] || install
fi
say "$dir/bin"
