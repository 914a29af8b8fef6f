# shellcheck shell=bash
# What the scripts of a release share: the values that fill links and labels, where files are, the registry on loopback.
# Nothing is built here.
#
# shellcheck disable=SC2034 # the variables are used by the files that source this one

RELEASE_HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=e2e/lib/common.sh
. "$RELEASE_HERE/../../e2e/lib/common.sh"
# shellcheck source=e2e/lib/build.sh
. "$RELEASE_HERE/../../e2e/lib/build.sh"
# shellcheck source=scripts/common.sh
. "$RELEASE_HERE/../common.sh"

# The address of the sources, without a slash at the end. Every link is made from it.
REPOSITORY=${REPOSITORY:-https://example.com/zen-lead}
REPOSITORY=${REPOSITORY%/}
# Where users get image and chart: HOST/PATH, below it /zen-lead and /charts/zen-lead.
REGISTRY=${REGISTRY:-registry.example.com/zen-lead}
REGISTRY=${REGISTRY%/}
VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$ROOT/Cargo.toml" | head -n 1)
REVISION=$(git -C "$ROOT" rev-parse HEAD)
# The time of every file and label of a release is that of its commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$ROOT" log -1 --format=%ct)}
CREATED=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
export SOURCE_DATE_EPOCH

DOCUMENTS=$REPOSITORY/blob/v$VERSION
DOWNLOADS=$REPOSITORY/releases/download/v$VERSION
DESCRIPTION="Routes a Kubernetes Service to exactly one ready pod"

[[ $REPOSITORY =~ ^https://[^[:space:]\"\'\|\\]+$ ]] || die "REPOSITORY is $REPOSITORY" "write the address of the sources: https://HOST/OWNER/NAME"
[[ $REGISTRY =~ ^[a-z0-9.:-]+(/[a-z0-9._-]+)+$ ]] || die "REGISTRY is $REGISTRY" "write HOST/PATH in lower case, without https://"

crane() { program_path crane && "$PROGRAM_PATH" "$@"; }
helm() {
  program_path helm4
  HELM_CONFIG_HOME=$HELM_HOME HELM_CACHE_HOME=$HELM_HOME HELM_DATA_HOME=$HELM_HOME "$PROGRAM_PATH" "$@"
}

# start_registry LOG [COMMAND...]: an empty registry on a free port of this machine, run by COMMAND. Sets REGISTRY_ADDRESS
# and REGISTRY_PID.
start_registry() {
  program_path crane
  "${@:2}" "$PROGRAM_PATH" registry serve --address 127.0.0.1:0 >"$1" 2>&1 </dev/null &
  REGISTRY_PID=$!
  wait_for 10 grep -qE "serving on port [0-9]+" "$1" || die "the registry on loopback does not start" "$(tail -n 3 "$1")"
  REGISTRY_ADDRESS=127.0.0.1:$(grep -oE 'serving on .*' "$1" | grep -oE '[0-9]+$' | head -n 1)
}

stop_registry() {
  [[ -n ${REGISTRY_PID:-} ]] || return 0
  kill "$REGISTRY_PID" 2>/dev/null || true
  wait "$REGISTRY_PID" 2>/dev/null || true
  REGISTRY_PID=''
}
