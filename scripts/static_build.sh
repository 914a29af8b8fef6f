#!/usr/bin/env bash
# Builds the static release binary and prints only its path on standard output:
#
#   scripts/static_build.sh [--auditable] [--machine x86_64|aarch64]
#
# --auditable writes the list of the dependencies into the binary, as a release does. --machine builds for another machine
# than this one; that needs its musl target and the compiler MACHINE-linux-gnu-gcc. It uses musl if its target is
# available, otherwise (for this machine only) the gnu target with the C library linked in. The same sources and the same
# tools give the same bytes, wherever the checkout lies (docs/decisions/release-profile.md).
# e2e/load_image.sh, scripts/release and the Dockerfile make images.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

here=$(uname -m)
machine=$here
cargo=(cargo)
while [[ $# -gt 0 ]]; do
  case $1 in
    --auditable) cargo=("$(scripts/tool.sh cargo-auditable)" auditable) ;;
    --machine) machine=${2:?--machine needs x86_64 or aarch64} && shift ;;
    *) die "usage: scripts/static_build.sh [--auditable] [--machine x86_64|aarch64]" ;;
  esac
  shift
done
musl=$machine-unknown-linux-musl
gnu=$machine-unknown-linux-gnu
target_dir=${CARGO_TARGET_DIR:-$ROOT/target}

# The rust-std of the target may be installed without rustup (a distribution's package).
have_musl() { [[ -d $(rustc --print sysroot)/lib/rustlib/$musl/lib ]]; }

if ! have_musl && have rustup; then
  say "fetching the target $musl" >&2
  rustup target add "$musl" >&2 || say "it was refused" >&2
fi

flags=()
read -ra flags <<<"${RUSTFLAGS:-}"
upper=${musl//-/_}
if [[ $machine != "$here" ]]; then
  have_musl || die "there is no Rust target $musl" "run: rustup target add $musl"
  have "$machine-linux-gnu-gcc" ||
    die "the command $machine-linux-gnu-gcc is missing" "install the package gcc-${machine//_/-}-linux-gnu"
  export "CC_$upper=$machine-linux-gnu-gcc" "CARGO_TARGET_${upper^^}_LINKER=$machine-linux-gnu-gcc"
fi
if have_musl; then
  target=$musl
  # ring has a few C files that need no C library; any compiler for the machine works.
  cc_variable=CC_$upper
  if ! have musl-gcc && [[ -z ${!cc_variable:-} ]]; then
    export "$cc_variable=${CC:-cc}"
  fi
  # 24 bytes for each relocation become a few bits; musl reads them since 1.2.4; the pinned Rust brings 1.2.5.
  flags+=(-C "link-arg=-Wl,-z,pack-relative-relocs")
else
  target=$gnu
  say "no musl target: linking glibc statically instead" >&2
  flags+=(-C target-feature=+crt-static)
fi
# The paths of sources are in the messages of panics; those of this machine have no meaning elsewhere.
flags+=(
  "--remap-path-prefix=$ROOT=/src"
  "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/crates"
  "--remap-path-prefix=$(realpath -m "$target_dir")=/target"
)
# Paths may have spaces, which RUSTFLAGS would take as the end of a flag.
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && printf %s "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS
# No time is written into the binary, but the parts in C would be compiled again for each value.
unset SOURCE_DATE_EPOCH

say "building the release binary for $target (4 to 6 minutes from nothing on two cores)" >&2
"${cargo[@]}" build --locked --release --bin zen-lead --target "$target" >&2

binary=$target_dir/$target/release/zen-lead
# A binary that needs an interpreter would not start in an empty image.
if LC_ALL=C readelf --program-headers "$binary" 2>/dev/null | grep -q INTERP; then
  die "$binary is not static"
fi
say "$binary"
