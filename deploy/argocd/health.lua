-- Argo CD: the health of a Service. A Service that zen-lead reports on is healthy while exactly one pod is routed.
-- README.md says where Argo CD reads this. It replaces Argo CD's own check of Services, so it repeats that one:
-- a load balancer without an address is still being made.
-- https://argo-cd.readthedocs.io/en/stable/operator-manual/health/
local status = obj.status or {}

for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "zen-lead.io/LeaderReady" then
    if condition.status == "True" then
      break
    end
    local message = (condition.reason or "Unknown") .. ": " .. (condition.message or "")
    if condition.status == "False" then
      return { status = "Degraded", message = message }
    end
    return { status = "Progressing", message = message }
  end
end

if obj.spec ~= nil and obj.spec.type == "LoadBalancer" then
  local ingress = (status.loadBalancer or {}).ingress
  if ingress == nil or #ingress == 0 then
    return { status = "Progressing", message = "the load balancer has no address yet" }
  end
end

return { status = "Healthy", message = "" }
