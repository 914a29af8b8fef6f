#!/usr/bin/env bash
# Checks the words of our texts with vale and the rules in scripts/prose (docs/decisions/prose-linter.md):
#
#   scripts/prose.sh [FILE...]
#
# Without arguments: all files of the repository that CHECKED matches. vale is built from its Go module,
# once per version, into the cache.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=e2e/lib/common.sh
. "$ROOT/e2e/lib/common.sh"
# shellcheck source=e2e/lib/build.sh
. "$ROOT/e2e/lib/build.sh"
cd "$ROOT"

CHECKED=('*.md' 'deploy/*.yaml')
# The sources are checked once they are clean. To switch them on, remove the first # of the next line.
CHECKED+=('core/*.rs' 'src/*.rs' 'tests/*.rs' 'e2e/*.rs' '*.sh')

files=("$@")
[[ ${#files[@]} -gt 0 ]] || mapfile -t files < <(git ls-files -- "${CHECKED[@]}")
build_programs vale
program_path vale
if ! "$PROGRAM_PATH" --no-global --config scripts/prose/vale.ini --output line "${files[@]}"; then
  warn "vale: our texts do not use these words; the rules are in scripts/prose/styles/House/Words.yml"
  exit 1
fi
say "vale: ${#files[@]} files"
