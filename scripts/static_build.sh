#!/usr/bin/env bash
# Builds the static release binary and prints only its path on standard output:
#
#   scripts/static_build.sh
#
# It uses musl if its target is available, otherwise the gnu target with the C library linked in.
# e2e/load_image.sh and the Dockerfile make images.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

machine=$(uname -m)
musl=$machine-unknown-linux-musl
gnu=$machine-unknown-linux-gnu
target_dir=${CARGO_TARGET_DIR:-$ROOT/target}

# The rust-std of the target may be installed without rustup (a distribution's package).
have_musl() { [[ -d $(rustc --print sysroot)/lib/rustlib/$musl/lib ]]; }

if ! have_musl && have rustup; then
  say "fetching the target $musl" >&2
  rustup target add "$musl" >&2 || say "it was refused" >&2
fi

if have_musl; then
  target=$musl
  # ring has a few C files that need no C library; any compiler for this machine works.
  cc_variable=CC_${musl//-/_}
  if ! have musl-gcc && [[ -z ${!cc_variable:-} ]]; then
    export "$cc_variable=${CC:-cc}"
  fi
  # 24 bytes for each relocation become a few bits; musl reads them since 1.2.4; the pinned Rust brings 1.2.5.
  export RUSTFLAGS="${RUSTFLAGS:-} -C link-arg=-Wl,-z,pack-relative-relocs"
else
  target=$gnu
  say "no musl target: linking glibc statically instead" >&2
  export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
fi

say "building the release binary for $target (4 to 6 minutes from nothing on two cores)" >&2
cargo build --locked --release --bin zen-lead --target "$target" >&2

binary=$target_dir/$target/release/zen-lead
# A binary that needs an interpreter would not start in an empty image.
if LC_ALL=C readelf --program-headers "$binary" 2>/dev/null | grep -q INTERP; then
  die "$binary is not static"
fi
say "$binary"
