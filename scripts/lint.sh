#!/usr/bin/env bash
# Checks the sources without running them. The first failure ends it.
#
#   scripts/lint.sh
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

step() { printf -- '-- %s\n' "$*"; }

step "cargo fmt"
cargo fmt --all --check

cargo fmt --manifest-path fuzz/Cargo.toml --check

step "cargo clippy"
cargo clippy --locked --workspace --all-targets --all-features -- -D warnings

step "cargo doc"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items

step "shellcheck"
if ! have shellcheck; then
  if [[ $(id -u) -ne 0 ]] || ! have apt-get; then
    die "shellcheck is missing" "install the package shellcheck (as root this script does it)"
  fi
  apt-get install -y -q shellcheck >/dev/null || { apt-get update -q && apt-get install -y -q shellcheck; } >/dev/null
fi
# Files that are only sourced are checked with the script that sources them.
mapfile -t scripts < <(git ls-files --stage -- "*.sh" .ci/run | awk '$1 == "100755" { print $4 }')
shellcheck --external-sources --check-sourced --source-path=SCRIPTDIR --source-path=. "${scripts[@]}"

step "vale: words that our texts do not use"
scripts/prose.sh

step "chart"
scripts/render.sh --check
scripts/test_chart.sh

step "manifests, workflows, Dockerfile"
scripts/lint_manifests.sh
scripts/test_lint_manifests.sh

step "gofmt and go vet of the small tools in e2e/tools"
badly=$(gofmt -l e2e/tools/*/*.go)
[[ -z $badly ]] || die "not formatted by gofmt:" "$badly"
(cd e2e/tools && GOFLAGS=-mod=readonly GOWORK=off go vet ./pause ./demo-app ./docker-archive ./review-load ./go-duration)

step "cargo deny: licences, bans, sources"
make --no-print-directory deny
