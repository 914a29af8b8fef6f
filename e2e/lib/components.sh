# shellcheck shell=bash
# The part of e2e/test_manifests.sh about the optional parts in deploy/components: each is rendered onto deploy/, the
# API server takes what it changes, and the policy that takes the place of the webhook works. Its verdicts are
# compared with those of the webhook in tests/cluster/without_webhook.rs.

components() {
  local name
  for name in metrics-token closed-network without-webhook; do
    mkdir -p "$WORK/with-$name"
    # kustomize takes relative paths only.
    printf 'resources: [%s]\ncomponents: [%s]\n' "$(realpath --relative-to="$WORK/with-$name" "$ROOT/deploy")" \
      "$(realpath --relative-to="$WORK/with-$name" "$ROOT/deploy/components/$name")" >"$WORK/with-$name/kustomization.yaml"
    allowed "deploy/components/$name is built by kustomize" admin kustomize "$WORK/with-$name" -o "$WORK/$name.yaml"
    allowed "and the API server takes it" admin apply --dry-run=server -f "$WORK/$name.yaml"
  done
  if grep -q 'value: /metrics-token/token' "$WORK/metrics-token.yaml"; then pass "the Deployment has the token"; else
    cp "$WORK/metrics-token.yaml" "$WORK/out" && fail "the Deployment has no token"
  fi
  if [[ $(grep -c 'cidr: \|kubernetes.io/metadata.name: ' "$WORK/closed-network.yaml") -eq 2 ]]; then pass "both ports have their callers"; else
    cp "$WORK/closed-network.yaml" "$WORK/out" && fail "a port is open to all"
  fi
  sed -n 's/^kind: //p' "$WORK/without-webhook.yaml" | sort | uniq -c >"$WORK/out"
  if ! grep -q 'WebhookConfiguration' "$WORK/out" && grep -q ' 7 ValidatingAdmissionPolicy$' "$WORK/out"; then
    pass "without-webhook has no webhook configuration, and one policy more"
  else
    fail "without-webhook has other kinds"
  fi
}

# No process of zen-lead runs. Both webhook configurations are back afterwards, and the policy stays, for the cases
# about uninstalling.
without_webhook() {
  local enabled='zen-lead.io/enabled=true' started
  admin delete -f "$MANIFESTS/60-webhooks.yaml" >/dev/null
  admin apply -f "$WITHOUT_WEBHOOK" >/dev/null
  source_service served | alice -n "$NS" create -f - >/dev/null
  eventually 30 "the policy without the webhook is in force" \
    sh -c "! '$KUBECTL' -n $NS annotate --dry-run=server service served zen-lead.io/sticky=maybe"
  refused "it says what to write instead" 'metadata.annotations[zen-lead.io/sticky]: Invalid value: "yes": must be "true" or "false"; write "true"' \
    alice -n "$NS" annotate service served zen-lead.io/sticky=yes
  refused "it lists all mistakes" 'no such key' alice -n "$NS" annotate service served zen-lead.io/enabld=true zen-lead.io/sticky=maybe
  refused "it sees what a status update carries" 'Forbidden: only zen-lead writes this key' admin -n "$NS" patch service served \
    --subresource=status --type=merge -p '{"metadata":{"annotations":{"zen-lead.io/current-leader":"me"}}}'
  allowed "a Service can be enabled while no process of zen-lead runs" alice -n "$NS" annotate service served "$enabled"
  refused "an enabled Service keeps its selector" 'spec.selector: Required value' \
    alice -n "$NS" patch service served --type=merge -p '{"spec":{"selector":null}}'
  allowed "it can be turned off" alice -n "$NS" annotate --overwrite service served zen-lead.io/enabled=false

  started=$SECONDS
  allowed "the plain Service with 60,000 annotations can be changed" alice -n "$NS" label --overwrite service plain team=z
  refused "a mistake among 60,000 annotations is found" 'must be "true" or "false"' alice -n "$NS" annotate service plain zen-lead.io/sticky=maybe
  refused "a Service with 60,000 annotations cannot be enabled" 'annotations, and zen-lead reads at most 256' \
    alice -n "$NS" annotate service plain "$enabled"
  if ((SECONDS - started < 60)); then pass "the three writes took $((SECONDS - started)) s"; else fail "the three writes took $((SECONDS - started)) s"; fi
  admin apply -f "$MANIFESTS/60-webhooks.yaml" >/dev/null
}
