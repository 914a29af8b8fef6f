#!/usr/bin/env bash
# Prints the rules of deploy/monitoring/prometheusrule.yaml as a plain Prometheus rules file:
#
#   scripts/prometheus_rules.sh >zen-lead.rules.yaml
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# The groups are the last part of the resource, indented by two blanks.
sed -n '/^  groups:$/,$ s/^  //p' "$ROOT/deploy/monitoring/prometheusrule.yaml"
