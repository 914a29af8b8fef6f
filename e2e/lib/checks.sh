# shellcheck shell=bash
# How the shell tests of manifests, chart and GitOps check and count. The output of the last command is in $WORK/out.
# What is checked is in the scripts that source this file; they end with `conclude`.

FAILED=0 PASSED=0

pass() { PASSED=$((PASSED + 1)) && printf 'ok    %s\n' "$1"; }
fail() {
  FAILED=$((FAILED + 1))
  printf 'FAIL  %s\n' "$1"
  [[ ! -e $WORK/out ]] || cut -c1-2000 "$WORK/out" | sed 's/^/      /'
}

# holds WHAT COMMAND...
holds() {
  local what=$1
  shift
  if "$@" >"$WORK/out" 2>&1; then pass "$what"; else fail "$what"; fi
}

# eventually SECONDS WHAT COMMAND...
eventually() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >"$WORK/out" 2>&1; do
    [[ $SECONDS -lt $deadline ]] || { fail "$what: not in time"; return 0; }
    sleep 0.2
  done
  pass "$what"
}

# conclude: the counts, and whether nothing failed.
conclude() {
  printf '%s passed, %s failed\n' "$PASSED" "$FAILED"
  [[ $FAILED -eq 0 ]]
}
