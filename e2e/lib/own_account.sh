# shellcheck shell=bash
# Cases of e2e/test_manifests.sh: what the policies of deploy/manifests/75-own-account.yaml refuse to
# zen-lead's own account, and that all writes of zen-lead, repairs included, pass. Its helpers, and the
# objects of others (NS, WORK, zen_lead, refused, made ...), are in that script.

# json KIND NAME NAMESPACE MORE: an object; MORE is the rest of its fields.
json() { printf '{"apiVersion":"%s","kind":"%s","metadata":{"name":"%s","namespace":"%s"%s' "$(version_of "$1")" "$1" "$2" "$3" "$4"; }
version_of() { if [[ $1 == EndpointSlice ]]; then echo discovery.k8s.io/v1; else echo v1; fi; }

# create_as USER TEXT, and without keeping it.
create_as() { "$1" create -f - <<<"$2"; }
try_as() { "$1" create --dry-run=server -f - <<<"$2"; }

# The API server takes a moment to see a new policy.
own_account_in_force() {
  eventually 30 "the policy on zen-lead's Services is in force" \
    denied try_as zen_lead "$(json Service probe "$NS" '},"spec":{"ports":[{"port":80}]}}')"
  eventually 30 "the policy on zen-lead's slices is in force" \
    denied try_as zen_lead "$(json EndpointSlice probe "$NS" '},"addressType":"IPv4","endpoints":[]}')"
  eventually 30 "the policy on zen-lead's Secrets is in force" \
    denied try_as zen_lead "$(json Secret probe zen-lead-system '}}')"
}
denied() {
  local said
  ! said=$("$@" 2>&1) && grep -qF "ValidatingAdmissionPolicy 'zen-lead-account-" <<<"$said"
}

own_account() {
  own_services
  own_slices
  own_secrets
}

LEADER_META=',"labels":{"app.kubernetes.io/managed-by":"zen-lead","zen-lead.io/source-service":"mine"},"annotations":{"zen-lead.io/decision-version":"1"}'
PORTS='"ports":[{"name":"http","port":80}]'

own_services() {
  local none="leader Services only, and this Service is none" others="may change conditions of this Service, and neither" S
  made mine
  source_service bystander | alice -n "$NS" create -f - >/dev/null
  refused "zen-lead's account cannot create other Services" "may create $none" \
    try_as zen_lead "$(json Service x "$NS" "},\"spec\":{$PORTS}}")"
  refused "nor one with only the label" "may create $none" \
    try_as zen_lead "$(json Service x "$NS" ",\"labels\":{\"zen-lead.io/source-service\":\"mine\"}},\"spec\":{$PORTS}}")"
  refused "nor a leader Service with external IPs" "may not set spec.externalIPs" \
    try_as zen_lead "$(json Service x "$NS" "$LEADER_META},\"spec\":{\"externalIPs\":[\"192.0.2.1\"],$PORTS}}")"
  S=bystander
  refused "zen-lead's account cannot change the selector of other Services" "may change $none" \
    patch_service zen_lead '{"spec":{"selector":{"app":"other"}}}'
  refused "nor make them an ExternalName" "may change $none" \
    patch_service zen_lead '{"spec":{"type":"ExternalName","externalName":"example.com"}}'
  refused "nor make them leader Services" "may change $none" \
    patch_service zen_lead "{\"metadata\":{${LEADER_META#,}}}"
  refused "nor write their annotations through the status" "$others its annotations" \
    patch_service zen_lead '{"metadata":{"annotations":{"zen-lead.io/write-id":"x"}}}' --subresource=status
  refused "nor the label of leader Services" "$others" \
    patch_service zen_lead '{"metadata":{"labels":{"zen-lead.io/source-service":"mine"}}}' --subresource=status
  refused "nor the label of their proxy" "$others" \
    patch_service zen_lead '{"metadata":{"labels":{"service.kubernetes.io/service-proxy-name":"x"}}}' --subresource=status
  refused "nor a label that hides them from kube-proxy" "$others" \
    patch_service zen_lead '{"metadata":{"labels":{"service.kubernetes.io/headless":""}}}' --subresource=status
  refused "nor their owners" "$others" \
    patch_service zen_lead '{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"gone","uid":"gone"}]}}' --subresource=status
  refused "nor their finalizers" "$others" patch_service zen_lead '{"metadata":{"finalizers":["example.com/hold"]}}' --subresource=status
  admin -n "$NS" patch service "$S" --type=merge -p '{"spec":{"type":"LoadBalancer"}}' >/dev/null
  refused "nor the addresses of their load balancers" "may not set status.loadBalancer" \
    patch_service zen_lead '{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}' --subresource=status
  refused "nor delete them" "may delete $none" zen_lead -n "$NS" delete service "$S" --wait=false
  allowed "it may write conditions of sources" patch_service zen_lead \
    '{"status":{"conditions":[{"type":"zen-lead.io/LeaderReady","status":"False","reason":"Test","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}' --subresource=status
  allowed "also where a mutating webhook adds a label" patch_service zen_lead '{"metadata":{"labels":{"team":"x"}}}' --subresource=status
  own_repairs
}

# The signs by which zen-lead knows its own (docs/decisions/evidence.md), one after the other.
own_repairs() {
  local S=mine-leader lost
  for lost in '{"metadata":{"labels":{"zen-lead.io/source-service":null,"app.kubernetes.io/managed-by":"Helm"}}}' \
    '{"metadata":{"annotations":{"zen-lead.io/decision-version":null}}}' '{"metadata":{"ownerReferences":null}}'; do
    patch_service break_glass "$lost" >/dev/null
    allowed "zen-lead may put back what was lost by $lost" patch_service zen_lead \
      "{\"metadata\":{${LEADER_META#,},\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"name\":\"mine\",\"uid\":\"$(uid service mine)\",\"controller\":true}]}}"
  done
  patch_service break_glass '{"spec":{"selector":{"app":"other"},"externalIPs":["192.0.2.1"]}}' >/dev/null
  allowed "zen-lead may take off a selector, beside external IPs of others" patch_service zen_lead '{"spec":{"selector":null}}'
  refused "zen-lead's account cannot change external IPs" "may not set spec.externalIPs" patch_service zen_lead '{"spec":{"externalIPs":["192.0.2.2"]}}'
  allowed "zen-lead may write the mirror" patch_service zen_lead '{"metadata":{"annotations":{"zen-lead.io/current-leader":"x"}}}' --subresource=status
}

# changed NAME SED: an EndpointSlice as it is, changed.
changed() { admin -n "$NS" get endpointslice "$1" -o yaml | sed "$2"; }
replace_as() { "$1" -n "$NS" replace -f - <<<"$2"; }

own_slices() {
  local mine=mine-leader-zen-lead-ipv4 service
  json EndpointSlice theirs "$NS" ',"labels":{"kubernetes.io/service-name":"bystander","endpointslice.kubernetes.io/managed-by":"them"}},"addressType":"IPv4","endpoints":[]}' |
    admin create -f - >/dev/null
  refused "zen-lead's account cannot create slices with other names" "names that end with -zen-lead-ipv4 or -zen-lead-ipv6 only" \
    try_as zen_lead "$(json EndpointSlice bystander-x "$NS" ',"labels":{"kubernetes.io/service-name":"bystander","endpointslice.kubernetes.io/managed-by":"zen-lead"}},"addressType":"IPv4","endpoints":[]}')"
  for service in default/kubernetes kube-system/kube-dns zen-lead-system/zen-lead; do
    refused "nor add endpoints to $service" "may not add endpoints to the Service $service" \
      try_as zen_lead "$(json EndpointSlice x-zen-lead-ipv4 "${service%/*}" ",\"labels\":{\"kubernetes.io/service-name\":\"${service#*/}\"}},\"addressType\":\"IPv4\",\"endpoints\":[]}")"
  done
  refused "nor change slices of others" "may not change endpointslices of others" \
    replace_as zen_lead "$(changed theirs 's/managed-by: them/managed-by: zen-lead/')"
  refused "nor delete them" "may not delete endpointslices of others" zen_lead -n "$NS" delete endpointslice theirs --wait=false
  allowed "zen-lead may replace its slice" replace_as zen_lead "$(changed "$mine" 's/10.244.0.9/10.244.0.12/')"
  replace_as break_glass_root "$(changed "$mine" 's/managed-by: zen-lead/managed-by: Helm/')" >/dev/null
  allowed "also one that lost its labels, without putting them back" replace_as zen_lead "$(changed "$mine" 's/10.244.0.12/10.244.0.13/')"
  allowed "and put them back" replace_as zen_lead "$(changed "$mine" 's/managed-by: Helm/managed-by: zen-lead/')"
  allowed "zen-lead may delete its slice" zen_lead -n "$NS" delete endpointslice "$mine" --wait=false

  # As the built-in controllers make them.
  json Endpoints theirs "$NS" '}}' | admin create -f - >/dev/null
  json Endpoints left "$NS" ',"labels":{"zen-lead.io/source-service":"mine"}}}' | admin create -f - >/dev/null
  json EndpointSlice left-x7x7x "$NS" ',"labels":{"kubernetes.io/service-name":"mine-leader","zen-lead.io/source-service":"mine","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io"}},"addressType":"IPv4","endpoints":[]}' |
    admin create -f - >/dev/null
  refused "zen-lead's account cannot delete Endpoints of others" "may not delete endpoints of others" zen_lead -n "$NS" delete endpoints theirs --wait=false
  allowed "zen-lead may delete Endpoints left over" zen_lead -n "$NS" delete endpoints left --wait=false
  allowed "zen-lead may delete slices left over" zen_lead -n "$NS" delete endpointslice left-x7x7x --wait=false
  allowed "zen-lead may delete its leader Service" zen_lead -n "$NS" delete service mine-leader --wait=false
}
break_glass_root() { admin --as=root --as-group=system:masters --as-group=zen-lead:break-glass "$@"; }

own_secrets() {
  local only="may create the Secret zen-lead-ca of type Opaque only"
  refused "zen-lead's account cannot create other Secrets" "$only" try_as zen_lead "$(json Secret other zen-lead-system '}}')"
  refused "nor one that gets the token of another account" "$only" \
    try_as zen_lead "$(json Secret zen-lead-ca zen-lead-system ',"annotations":{"kubernetes.io/service-account.name":"default"}},"type":"kubernetes.io/service-account-token"}')"
  allowed "zen-lead may create the Secret of its CA" create_as zen_lead "$(json Secret zen-lead-ca zen-lead-system '}}')"
  admin -n zen-lead-system delete secret zen-lead-ca >/dev/null
}

patch_hooks() { "$1" patch "$2" zen-lead "${@:3}"; }

# After zen-lead wrote caBundle and owner: nothing else can be written by its account.
own_webhooks() {
  local kind bundle="nothing but the caBundle of a webhook"
  for kind in mutatingwebhookconfiguration validatingwebhookconfiguration; do
    refused "zen-lead's account cannot point a webhook elsewhere ($kind)" "$bundle" patch_hooks zen_lead $kind --type=json \
      -p '[{"op":"remove","path":"/webhooks/0/clientConfig/service"},{"op":"add","path":"/webhooks/0/clientConfig/url","value":"https://example.com/"}]'
    refused "nor at another Service" "$bundle" patch_hooks zen_lead $kind --type=json \
      -p '[{"op":"replace","path":"/webhooks/0/clientConfig/service/name","value":"other"}]'
    refused "nor have it called for other resources" "$bundle" patch_hooks zen_lead $kind --type=json \
      -p '[{"op":"replace","path":"/webhooks/0/rules/0/resources","value":["*"]}]'
    refused "nor without conditions" "$bundle" patch_hooks zen_lead $kind --type=json -p '[{"op":"remove","path":"/webhooks/0/matchConditions"}]'
    refused "nor in all namespaces" "$bundle" patch_hooks zen_lead $kind --type=json -p '[{"op":"replace","path":"/webhooks/0/namespaceSelector","value":{}}]'
    refused "nor with another time-out" "$bundle" patch_hooks zen_lead $kind --type=json -p '[{"op":"replace","path":"/webhooks/0/timeoutSeconds","value":30}]'
    refused "nor remove it" "$bundle" patch_hooks zen_lead $kind --type=merge -p '{"webhooks":[]}'
    refused "nor change labels" "labels, annotations, finalizers or owner references" patch_hooks zen_lead $kind --type=merge -p '{"metadata":{"labels":{"x":"y"}}}'
    refused "nor have a CA injected" "labels, annotations, finalizers or owner references" patch_hooks zen_lead $kind --type=merge \
      -p '{"metadata":{"annotations":{"cert-manager.io/inject-ca-from":"a/b"}}}'
    refused "nor hold it" "labels, annotations, finalizers or owner references" patch_hooks zen_lead $kind --type=merge -p '{"metadata":{"finalizers":["example.com/hold"]}}'
    refused "nor give it an owner that is gone" "labels, annotations, finalizers or owner references" patch_hooks zen_lead $kind --type=merge \
      -p '{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"zen-lead-system","uid":"gone"}]}}'
    refused "nor delete it" "cannot delete resource" zen_lead delete $kind zen-lead --wait=false
    allowed "an admin may change it" patch_hooks admin $kind --type=json -p '[{"op":"replace","path":"/webhooks/0/timeoutSeconds","value":2}]'
    patch_hooks admin $kind --type=json -p '[{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"}]' >/dev/null
    allowed "zen-lead may put the caBundle back" patch_hooks zen_lead $kind --type=json \
      -p "[{\"op\":\"add\",\"path\":\"/webhooks/0/clientConfig/caBundle\",\"value\":\"$(<"$WORK/bundle")\"}]"
  done
  unchanged_bundles
}
