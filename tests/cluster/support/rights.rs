//! What zen-lead's service account may do, and what it did: the rules of RBAC on one side, its calls
//! in the audit log on the other. Also what makes zen-lead use its rights. The suites check
//! a run.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::built_in;
use super::case::Case;
use super::cluster::Cluster;
use super::names;
use super::waiting::{check, until};

/// Name of the service account, and of the Secret with the CA.
const ACCOUNT: &str = "zen-lead";
const CA: &str = "zen-lead-ca";
/// In the names of the policies on zen-lead's own account.
const OWN_POLICIES: &str = "zen-lead-account-";
/// The one refusal that a walk of clumsy hands brings about: a mutating webhook that puts the label of leader
/// Services on a source while zen-lead writes a condition.
const LABELLED_BY_A_WEBHOOK: &str = "may change conditions of this Service";

/// Rights that are not used here, and why zen-lead has them.
pub const RARE: [(&str, &str); 2] = [
    (
        "create endpointslices/restricted.discovery.k8s.io",
        "OpenShift asks for it before it takes addresses of pods in a slice written by hand",
    ),
    ("review services.zen-lead.io", "the webhook configurations ask whether zen-lead has it"),
];

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    verb: String,
    /// With its subresource.
    resource: String,
    /// Empty for the core.
    group: String,
    /// Set if it is granted for one object.
    name: Option<String>,
    /// Set if it is granted in one namespace.
    namespace: Option<String>,
}

impl Right {
    /// Without namespace and object, as [`RARE`] names it.
    pub fn short(&self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        format!("{} {}{dot}{}", self.verb, self.resource, self.group)
    }

    fn covers(&self, call: &Call) -> bool {
        (&self.verb, &self.resource, &self.group) == (&call.verb, &call.resource, &call.group)
            && self.name.as_ref().is_none_or(|name| *name == call.name)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == call.namespace)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())?;
        if let Some(name) = &self.name {
            write!(f, " named {name}")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, " in {namespace}")?;
        }
        Ok(())
    }
}

/// All rights that the service account has by its own bindings, not by those of a group.
pub async fn granted(admin: &Client, system: &str) -> BTreeSet<Right> {
    let ours = |subjects: &Option<Vec<Subject>>| {
        subjects.iter().flatten().any(|s| {
            s.kind == "ServiceAccount"
                && s.name == ACCOUNT
                && s.namespace.as_deref() == Some(system)
        })
    };
    let all = ListParams::default();
    let mut rights = BTreeSet::new();
    let bindings: Api<ClusterRoleBinding> = Api::all(admin.clone());
    for binding in bindings.list(&all).await.unwrap().items {
        if ours(&binding.subjects) {
            add(&mut rights, &rules(admin, &binding.role_ref, None).await, None);
        }
    }
    let bindings: Api<RoleBinding> = Api::all(admin.clone());
    for binding in bindings.list(&all).await.unwrap().items {
        if ours(&binding.subjects) {
            let namespace = binding.namespace();
            let rules = rules(admin, &binding.role_ref, namespace.as_deref()).await;
            add(&mut rights, &rules, namespace.as_deref());
        }
    }
    rights
}

async fn rules(admin: &Client, role: &RoleRef, namespace: Option<&str>) -> Vec<PolicyRule> {
    let rules = if role.kind == "Role" {
        let roles: Api<Role> = Api::namespaced(admin.clone(), namespace.unwrap());
        roles.get(&role.name).await.unwrap().rules
    } else {
        let roles: Api<ClusterRole> = Api::all(admin.clone());
        roles.get(&role.name).await.unwrap().rules
    };
    rules.unwrap_or_default()
}

fn add(rights: &mut BTreeSet<Right>, rules: &[PolicyRule], namespace: Option<&str>) {
    for rule in rules {
        let urls = &rule.non_resource_urls;
        assert!(urls.iter().flatten().next().is_none(), "no call of zen-lead needs {urls:?}");
        let names = match rule.resource_names.as_deref() {
            None | Some([]) => vec![None],
            Some(names) => names.iter().cloned().map(Some).collect(),
        };
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for (verb, name) in
                    rule.verbs.iter().flat_map(|verb| names.iter().map(move |name| (verb, name)))
                {
                    rights.insert(Right {
                        verb: verb.clone(),
                        resource: resource.clone(),
                        group: group.clone(),
                        name: name.clone(),
                        namespace: namespace.map(str::to_owned),
                    });
                }
            }
        }
    }
}

/// One call, as the audit log records it.
#[derive(Clone, Debug)]
pub struct Call {
    verb: String,
    /// Empty if the call was about no object, such as /version.
    resource: String,
    group: String,
    name: String,
    namespace: String,
    uri: String,
    code: u64,
    /// RBAC said no.
    forbidden: bool,
    /// The policy on zen-lead's own account that said no, and why.
    denied: Option<String>,
    /// The API server could do nothing in a namespace that is being deleted.
    pub ending: bool,
}

impl Call {
    /// The resource, with its subresource.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    fn of(entry: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (at, status) = (&entry["objectRef"], &entry["responseStatus"]);
        let mut resource = text(&at["resource"]);
        if let Some(below) = at["subresource"].as_str() {
            resource = format!("{resource}/{below}");
        }
        Self {
            verb: text(&entry["verb"]),
            resource,
            group: text(&at["apiGroup"]),
            name: text(&at["name"]),
            namespace: text(&at["namespace"]),
            uri: text(&entry["requestURI"]),
            code: status["code"].as_u64().unwrap_or(0),
            forbidden: entry["annotations"]["authorization.k8s.io/decision"] == "forbid",
            denied: Some(text(&status["message"])).filter(|words| words.contains(OWN_POLICIES)),
            ending: text(&status["message"]).contains("because it is being terminated"),
        }
    }
}

/// Every call of the service account since then.
pub fn calls(cluster: &Cluster, system: &str, since: Timestamp) -> Vec<Call> {
    let user = format!("system:serviceaccount:{system}:{ACCOUNT}");
    let log = std::fs::read_to_string(&cluster.audit_log).unwrap();
    log.lines()
        .filter(|line| line.contains(&user))
        // The last line may be incomplete.
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        // Not a user that impersonates it.
        .filter(|e| e["user"]["username"] == user.as_str() && e["impersonatedUser"].is_null())
        .filter(|e| {
            let at = e["requestReceivedTimestamp"].as_str();
            at.and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at >= since)
        })
        .map(|e| Call::of(&e))
        .collect()
}

/// Calls that were refused because a right was missing, and calls that no right of zen-lead allows.
pub fn uncovered(rights: &BTreeSet<Right>, calls: &[Call]) -> BTreeSet<String> {
    let line = |why: &str, call: &Call| format!("{why}: {} {}", call.verb, call.uri);
    let mut found = BTreeSet::new();
    for call in calls {
        if call.forbidden || call.code == 401 {
            found.insert(line("refused", call));
        // Every user may ask for the version.
        } else if call.uri != "/version" && !rights.iter().any(|right| right.covers(call)) {
            found.insert(line("no rule names it", call));
        }
    }
    found
}

/// Calls that the policies on zen-lead's own account refused: they allow all that it does.
pub fn denied(calls: &[Call]) -> BTreeSet<String> {
    let line = |call: &Call| {
        let why = call.denied.as_ref().filter(|why| !why.contains(LABELLED_BY_A_WEBHOOK))?;
        Some(format!("{} {}: {why}", call.verb, call.uri))
    };
    calls.iter().filter_map(line).collect()
}

/// The rights that no call needed.
pub fn unused(rights: &BTreeSet<Right>, calls: &[Call]) -> BTreeSet<String> {
    let used = |right: &Right| calls.iter().any(|c| !c.forbidden && right.covers(c));
    rights.iter().filter(|right| !used(right)).map(ToString::to_string).collect()
}

/// The rights among [`RARE`] and `more` that are granted: what [`unused`] may name.
pub fn rarely(rights: &BTreeSet<Right>, more: &[(&str, &str)]) -> BTreeSet<String> {
    let known: Vec<_> = RARE.iter().chain(more).map(|(right, _)| *right).collect();
    let granted = rights.iter().filter(|right| known.contains(&right.short().as_str()));
    let found: BTreeSet<String> = granted.map(ToString::to_string).collect();
    assert_eq!(found.len(), known.len(), "{known:?} and what is granted of them: {found:?}");
    found
}

/// Makes zen-lead use nearly all of its rights once: a leader Service is created, switched, repaired and
/// deleted; the CA is deleted, then broken. `selector` sets a selector on the leader Service
/// `web-leader`, as a user that the policies let through.
pub async fn exercise<F: Future<Output = ()>>(
    t: &Case,
    system: &str,
    webhooks: &str,
    selector: impl FnOnce() -> F,
) {
    t.ready_pods("web", &["a", "b"]).await;
    t.web(&[]).await;
    t.until_led_by("web-leader", "a").await;
    t.set_ready("a", false).await;
    t.until_led_by("web-leader", "b").await;
    // Copies follow the slice up to 5 s later.
    t.until_condition("web-leader", "True", "LeaderRoutingAvailable").await;
    t.until_event("web-leader", "LeaderChanged").await;
    selector().await;
    t.until_event("web-leader", "SelectorRemoved").await;
    // The real controllers may have missed it, or act on it later.
    built_in::until_gone(t).await;
    built_in::make_late(t).await;
    built_in::until_gone(t).await;
    let off = json!({"metadata": {"annotations": {names::ENABLED: "false"}}});
    t.patch_service("web", &off).await;
    t.until_gone("web-leader").await;

    let secrets: Api<Secret> = Api::namespaced(t.admin(), system);
    let content = || async {
        let secret = secrets.get_opt(CA).await.map_err(|e| e.to_string())?;
        secret.and_then(|s| s.data).filter(|d| !d.is_empty()).ok_or_else(|| "no CA".to_owned())
    };
    until("there is a CA", content).await;
    secrets.delete(CA, &DeleteParams::default()).await.unwrap();
    until("a new CA is created", content).await;
    let broken = Patch::Merge(json!({"data": {"ca.crt": "bm9uZQ=="}}));
    secrets.patch(CA, &PatchParams::default(), &broken).await.unwrap();
    let ca = until("the CA is repaired", || async {
        let ca = content().await?.remove("ca.crt").unwrap_or_default().0;
        check(ca != b"none", "it is still broken")?;
        String::from_utf8(ca).map_err(|e| e.to_string())
    })
    .await;
    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(t.admin());
    until("the webhooks have the present CA", || async {
        let hooks = hooks.get(webhooks).await.map_err(|e| e.to_string())?.webhooks;
        let bundle = hooks.unwrap_or_default().remove(0).client_config.ca_bundle;
        let bundle = String::from_utf8(bundle.unwrap_or_default().0).unwrap_or_default();
        check(bundle.contains(ca.trim()), "another one")
    })
    .await;
}
