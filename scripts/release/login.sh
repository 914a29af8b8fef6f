#!/usr/bin/env bash
# Logs in to the registry of the release, for the tools that push to it:
#
#   REGISTRY_USER=... REGISTRY_PASSWORD=... scripts/release/login.sh
#
# crane, Helm and cosign read the same file of credentials, that of Docker.
set -euo pipefail
# shellcheck source=scripts/release/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

build_programs crane
printf %s "${REGISTRY_PASSWORD:?}" | crane auth login "${REGISTRY%%/*}" --username "${REGISTRY_USER:?}" --password-stdin
