#!/usr/bin/env bash
# Reports missing tools before a long build fails because of them:
#
#   scripts/toolchain.sh rust|go|openssl|curl...
#
# It only checks; it installs nothing.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

for tool in "$@"; do
  case $tool in
    rust)
      have cargo || die "the cargo command is missing" \
        "install Rust by https://rustup.rs; rust-toolchain.toml names the version, rustup fetches it by itself"
      wanted=$(sed -n 's/^channel = "\(.*\)"$/\1/p' "$ROOT/rust-toolchain.toml")
      found=$(cd "$ROOT" && cargo --version | cut -d' ' -f2)
      [[ $found == "$wanted" ]] || die "cargo is $found, the project is built with $wanted" \
        "use rustup (it reads rust-toolchain.toml), or install that version"
      ;;
    go)
      have go || die "the go command is missing; it builds the local test cluster" \
        "install Go 1.26 or newer (https://go.dev/dl), or set KUBEBUILDER_ASSETS for tests without a node"
      ;;
    *) have "$tool" || die "the command $tool is missing" "install the package $tool" ;;
  esac
done
