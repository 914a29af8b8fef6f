//! Names and lists that are both in deploy/ and in the code have to agree. No cluster here: the behaviour
//! of the manifests is tested by e2e/test_manifests.sh.

#![allow(clippy::unwrap_used, reason = "a test: what fails here fails the test")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use zen_lead_core::index::evidence;
use zen_lead_core::keys::{self, setting, status};

const WEBHOOKS: &str = include_str!("../deploy/manifests/60-webhooks.yaml");
const PROTECTION: &str = include_str!("../deploy/manifests/70-protection.yaml");
const OWN_ACCOUNT: &str = include_str!("../deploy/manifests/75-own-account.yaml");
const RBAC: &str = include_str!("../deploy/manifests/10-rbac.yaml");
const DEPLOYMENT: &str = include_str!("../deploy/manifests/50-deployment.yaml");
const WITHOUT_WEBHOOK: &str = include_str!("../deploy/components/without-webhook/settings.yaml");
const USER: &str = "system:serviceaccount:zen-lead-system:zen-lead";

/// The keys in the list variable of each policy, in the order of the file.
fn lists_of_keys() -> Vec<BTreeSet<&'static str>> {
    PROTECTION
        .split("- name: keys\n")
        .skip(1)
        .map(|rest| {
            let (list, _) = rest.split_once(']').expect("a list ends");
            list.split('"').filter(|word| word.starts_with(keys::PREFIX)).collect()
        })
        .collect()
}

#[test]
fn the_policies_protect_every_key_there_is() {
    let truth: BTreeSet<_> = status::ALL.into_iter().collect();
    let all: BTreeSet<_> = truth.iter().copied().chain(setting::ALL).collect();
    let lists = lists_of_keys();
    assert_eq!(lists.len(), 2);
    for (list, (policy, keys)) in lists.iter().zip([("Services", all), ("slices", truth)]) {
        let differing: Vec<_> = list.symmetric_difference(&keys).collect();
        assert!(
            differing.is_empty(),
            "deploy/manifests/70-protection.yaml, list `keys` of the policy for {policy}: differs from \
             core/src/keys.rs in {differing:?}"
        );
    }
}

/// What no other test compares with the code.
#[test]
fn every_setting_is_listed_for_readers_and_for_fuzzing() {
    for key in setting::ALL {
        for (file, text, line) in [
            ("README.md", include_str!("../README.md"), format!("| `{key}` |")),
            ("fuzz/annotations.dict", include_str!("../fuzz/annotations.dict"), key.to_owned()),
            ("fuzz/review.dict", include_str!("../fuzz/review.dict"), key.to_owned()),
        ] {
            assert!(text.contains(&line), "{file} does not list {key} (core/src/keys.rs)");
        }
    }
}

#[test]
fn both_webhooks_are_asked_about_the_same_writes() {
    let conditions: Vec<_> = WEBHOOKS
        .split("    matchConditions:\n")
        .skip(1)
        .map(|rest| rest.split("---").next().unwrap_or_default().trim_end())
        .collect();
    assert_eq!(conditions.len(), 2);
    assert_eq!(conditions[0], conditions[1]);
    assert!(conditions[0].contains(USER), "{}", conditions[0]);
}

#[test]
fn zen_lead_is_exempt_by_the_name_it_has() {
    let exemption = format!("request.userInfo.username != \"{USER}\"");
    assert_eq!(WEBHOOKS.matches(&exemption).count(), 2);
    assert_eq!(PROTECTION.matches(&exemption).count(), 2);
}

#[test]
fn the_policies_look_for_the_labels_that_are_written() {
    assert!(PROTECTION.contains(&format!("- key: {}\n", status::SOURCE_SERVICE)));
    let slices = format!(
        "matchLabels:\n        {}: {}\n",
        keys::kubernetes::SLICE_MANAGED_BY,
        keys::MANAGER
    );
    assert!(PROTECTION.contains(&slices));
}

/// The object of this kind in a manifest of several.
fn object(manifest: &str, kind: &str) -> Value {
    let all = serde_saphyr::from_multiple::<Value>(manifest).unwrap();
    all.into_iter().find(|o| o["kind"] == kind).expect(kind)
}

/// The limit that tests/cluster/abuse.rs checks with 200 bodies of 3 MiB at once.
#[test]
fn the_limit_of_memory_leaves_room_for_large_bodies() {
    let pod = &object(DEPLOYMENT, "Deployment")["spec"]["template"]["spec"];
    let limit = pod["containers"][0]["resources"]["limits"]["memory"].as_str().unwrap();
    let mebibytes: u32 = limit.strip_suffix("Mi").unwrap().parse().unwrap();
    assert!(mebibytes >= 300, "{limit}");
}

/// Only a comparison of texts: the network of the test cluster enforces no policies.
#[test]
fn the_network_policy_opens_two_ports_of_zen_leads_pods() {
    let policy =
        &object(include_str!("../deploy/manifests/40-network-policy.yaml"), "NetworkPolicy");
    let pods = &object(DEPLOYMENT, "Deployment")["spec"]["template"];
    let namespaces = [&policy["metadata"]["namespace"], &pods["metadata"]["namespace"]];
    assert_eq!(namespaces, [&json!("zen-lead-system"), &Value::Null]);
    let spec = &policy["spec"];
    assert_eq!(spec["podSelector"].as_object().unwrap().len(), 1, "{spec}");
    let wanted = spec["podSelector"]["matchLabels"].as_object().unwrap();
    assert!(!wanted.is_empty());
    for (key, value) in wanted {
        assert_eq!(pods["metadata"]["labels"][key], *value, "{key}");
    }
    // Egress is not limited: the API server's address and port differ by cluster.
    assert_eq!(spec["policyTypes"], json!(["Ingress"]));
    assert_eq!(spec["egress"], Value::Null);
    let containers = pods["spec"]["containers"].as_array().unwrap();
    let ports: Vec<&Value> =
        containers.iter().flat_map(|c| c["ports"].as_array().unwrap()).collect();
    let opened: Vec<_> = spec["ingress"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["ports"].as_array().expect("a rule without ports opens all"))
        .map(|port| {
            let named =
                ports.iter().find(|p| p["name"] == port["port"]).expect("a port of the pods");
            assert_eq!(named["protocol"], port["protocol"]);
            named["containerPort"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(opened, [9443, 8080]);
    assert_eq!(ports.len(), opened.len(), "a port that no client can reach: {ports:?}");
}

#[test]
fn the_namespace_enforces_the_restricted_standard() {
    let namespace = object(include_str!("../deploy/manifests/00-namespace.yaml"), "Namespace");
    let labels = &namespace["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
    assert_eq!(labels["pod-security.kubernetes.io/enforce-version"], "latest");
}

/// The objects of one kind in a manifest of several.
fn objects(manifest: &str, kind: &str) -> Vec<Value> {
    let mut all = serde_saphyr::from_multiple::<Value>(manifest).unwrap();
    all.retain(|o| o["kind"] == kind);
    all
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap())
}

/// Writes of other users must not depend on them: nothing is evaluated for these but the user's name, and
/// none waits for a parameter.
#[test]
fn the_policies_on_zen_leads_account_are_about_this_account_alone() {
    let policies = objects(OWN_ACCOUNT, "ValidatingAdmissionPolicy");
    assert_eq!(policies.len(), 4);
    for policy in &policies {
        let (name, spec) = (&policy["metadata"]["name"], &policy["spec"]);
        let only = json!([{
            "name": "only-zen-lead-itself",
            "expression": format!("request.userInfo.username == \"{USER}\""),
        }]);
        assert_eq!(spec["matchConditions"], only, "{name}");
        assert_eq!(spec["failurePolicy"], "Fail", "{name}");
        assert_eq!(spec["paramKind"], Value::Null, "{name}");
    }
    let name = |o: &Value| o["metadata"]["name"].as_str().unwrap().to_owned();
    let bound: BTreeSet<_> = objects(OWN_ACCOUNT, "ValidatingAdmissionPolicyBinding")
        .iter()
        .inspect(|binding| assert_eq!(binding["spec"]["validationActions"], json!(["Deny"])))
        .map(|binding| binding["spec"]["policyName"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(bound, policies.iter().map(name).collect());
}

/// The right that the webhook configurations ask for is the one that the Role in zen-lead's namespace grants.
#[test]
fn the_webhooks_ask_for_a_right_that_goes_with_the_namespace() {
    let role =
        objects(RBAC, "Role").into_iter().find(|r| r["metadata"]["name"] == "zen-lead-admission");
    let role = role.expect("the Role");
    let [group, resource, verb] = ["apiGroups", "resources", "verbs"]
        .map(|field| role["rules"][0][field][0].as_str().unwrap().to_owned());
    let binding = objects(RBAC, "RoleBinding")
        .into_iter()
        .find(|b| b["roleRef"]["name"] == "zen-lead-admission");
    let binding = binding.expect("the RoleBinding");
    let (namespace, account) =
        (&binding["subjects"][0]["namespace"], &binding["subjects"][0]["name"]);
    let expected = format!(
        "authorizer.serviceAccount({namespace}, {account}).group(\"{group}\").resource(\"{resource}\")\
         .namespace({}).check(\"{verb}\").allowed()",
        role["metadata"]["namespace"]
    );
    let hooks = ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"];
    for config in hooks.iter().flat_map(|kind| objects(WEBHOOKS, kind)) {
        let conditions = config["webhooks"][0]["matchConditions"].as_array().unwrap().clone();
        let asked = conditions.into_iter().find(|c| c["name"] == "zen-lead-is-installed");
        assert_eq!(asked.expect("the condition")["expression"], json!(expected));
    }
}

/// The policy for installations without the webhook.
fn settings_policy() -> Value {
    object(WITHOUT_WEBHOOK, "ValidatingAdmissionPolicy")["spec"].clone()
}

/// The expression of one of its variables.
fn variable(name: &str) -> String {
    let variables = settings_policy()["variables"].as_array().unwrap().clone();
    let found = variables.into_iter().find(|v| v["name"] == name).expect(name);
    found["expression"].as_str().unwrap().to_owned()
}

/// What stands between two texts.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).expect(start);
    rest.split_once(end).expect(end).0
}

/// Every second piece between quotes.
fn literals(text: &str) -> BTreeSet<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A list of constants in core/src/settings/provider.rs, which are private there.
fn constants(name: &str) -> BTreeSet<String> {
    let code = include_str!("../core/src/settings/provider.rs");
    let list = between(code, &format!("const {name}: &[&str] = &["), "];");
    let lines: Vec<_> = list.lines().filter(|line| !line.trim().starts_with("//")).collect();
    literals(&lines.join("\n"))
}

#[test]
fn the_policy_without_the_webhook_is_asked_about_the_same_writes() {
    let hook = object(WEBHOOKS, "ValidatingWebhookConfiguration")["webhooks"][0].clone();
    let policy = settings_policy();
    assert_eq!(policy["matchConditions"], hook["matchConditions"]);
    let constraints = &policy["matchConstraints"];
    assert_eq!(constraints["resourceRules"], hook["rules"]);
    assert_eq!(constraints["namespaceSelector"], hook["namespaceSelector"]);
    assert_eq!(policy["failurePolicy"], "Ignore");
}

#[test]
fn the_policy_without_the_webhook_knows_every_key_there_is() {
    let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(literals(&variable("settings")), owned(&setting::ALL));
    assert_eq!(literals(&variable("statusKeys")), owned(&status::ALL));
}

#[test]
fn the_policy_without_the_webhook_knows_the_providers() {
    let mut ignored = constants("REPORTS");
    ignored.extend(constants("IN_CLUSTER"));
    ignored.insert("kubectl.kubernetes.io/last-applied-configuration".to_owned());
    assert_eq!(literals(&variable("notProviders")), ignored);
    let unnamed = variable("unnamed");
    let alternatives = |text: &str| text.split('|').map(str::to_owned).collect::<BTreeSet<_>>();
    let domains = constants("DOMAINS").iter().map(|domain| domain.replace('.', "[.]")).collect();
    assert_eq!(alternatives(between(&unnamed, "'^([^/]*[.])?(", ")/|")), domains);
    let words = between(&unnamed, "(^|[^a-z0-9])(", ")([^a-z0-9]|$)");
    assert_eq!(alternatives(words), constants("WORDS"));
}

/// Rights to write that no policy narrows, and why.
const NOT_NARROWED: [(&str, &str); 3] = [
    ("create events", "an Event routes nothing"),
    ("create endpointslices/restricted", "no object has it: OpenShift checks the right alone"),
    ("update secrets", "granted for one Secret, which zen-lead reads as well; its type is fixed"),
];

#[test]
fn every_right_to_write_is_narrowed_or_named() {
    let policies = objects(OWN_ACCOUNT, "ValidatingAdmissionPolicy");
    let judged = |resource: &str, operation: &str| {
        let rules = |p: &Value| p["spec"]["matchConstraints"]["resourceRules"].clone();
        policies.iter().map(rules).any(|rules| {
            rules.as_array().unwrap().iter().any(|rule| {
                texts(&rule["resources"]).any(|r| r == resource)
                    && texts(&rule["operations"]).any(|o| o == operation)
            })
        })
    };
    let roles = [objects(RBAC, "ClusterRole"), objects(RBAC, "Role")].concat();
    let mut named = BTreeSet::new();
    for rule in roles.iter().flat_map(|role| role["rules"].as_array().unwrap()) {
        // No API has resources of this group.
        if rule["apiGroups"] == json!(["zen-lead.io"]) {
            continue;
        }
        for (resource, verb) in texts(&rule["resources"])
            .flat_map(|resource| texts(&rule["verbs"]).map(move |verb| (resource, verb)))
        {
            let operation = match verb {
                "get" | "list" | "watch" => continue,
                "create" => "CREATE",
                "update" | "patch" => "UPDATE",
                "delete" => "DELETE",
                other => panic!("a verb that the policies do not know: {other}"),
            };
            if !judged(resource, operation) {
                named.insert(format!("{verb} {resource}"));
            }
        }
    }
    let known = NOT_NARROWED.map(|(right, _)| right.to_owned());
    assert_eq!(named, BTreeSet::from(known), "75-own-account.yaml and NOT_NARROWED");
}

#[test]
fn the_policies_on_zen_leads_account_know_the_signs_of_its_objects() {
    let stamps =
        [status::DECISION_VERSION, status::LEADER_EPOCH, status::DECIDED_AT, status::WRITE_ID];
    for stamp in stamps {
        assert!(OWN_ACCOUNT.contains(&format!("\"{stamp}\" in variables.annotations")), "{stamp}");
    }
    for name in evidence::slice_names("") {
        assert!(OWN_ACCOUNT.contains(&format!("variables.metadata.name.endsWith(\"{name}\")")));
    }
    let managed = format!(
        "variables.labels[?\"{}\"].orValue(\"\") == \"{}\"",
        keys::kubernetes::SLICE_MANAGED_BY,
        keys::MANAGER
    );
    assert!(OWN_ACCOUNT.contains(&managed));
    let labelled = format!("\"{}\" in variables.", status::SOURCE_SERVICE);
    assert_eq!(OWN_ACCOUNT.matches(&labelled).count(), 2);
}

#[test]
fn everything_in_the_manifests_is_installed() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/manifests");
    let files = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().file_name());
    let files: BTreeSet<_> =
        files.map(|f| format!("manifests/{}", f.into_string().unwrap())).collect();
    let listed = object(include_str!("../deploy/kustomization.yaml"), "Kustomization");
    assert_eq!(files, texts(&listed["resources"]).map(str::to_owned).collect());
}

/// `kubectl kustomize` applies the patch in e2e/test_manifests.sh; the places of rules move here first.
#[test]
fn without_the_webhook_configurations_exactly_these_rights_are_left_out() {
    let component = object(include_str!("../certs/external/kustomization.yaml"), "Component");
    let patches = component["patches"].as_array().unwrap();
    let patch = patches.iter().find(|p| p["target"]["kind"] == "ClusterRole").unwrap();
    let patch: json_patch::Patch =
        serde_saphyr::from_str(patch["patch"].as_str().unwrap()).unwrap();
    let (all, mut less) = (object(RBAC, "ClusterRole"), object(RBAC, "ClusterRole"));
    json_patch::patch(&mut less, &patch).unwrap();
    let rules = |role: &Value| role["rules"].as_array().unwrap().clone();
    let mut gone = rules(&all);
    gone.retain(|rule| !rules(&less).contains(rule));
    let gone: Vec<&str> = gone.iter().flat_map(|rule| texts(&rule["resources"])).collect();
    let hooks = ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"];
    assert_eq!(gone, hooks);
}

/// A field that Kubernetes adds fails to compile here: decide whose it is, and add it to the table.
#[test]
fn every_field_of_a_service_has_an_owner_in_the_documents() {
    use k8s_openapi::api::core::v1::ServiceSpec;

    let ServiceSpec {
        allocate_load_balancer_node_ports: _,
        cluster_ip: _,
        cluster_ips: _,
        external_ips: _,
        external_name: _,
        external_traffic_policy: _,
        health_check_node_port: _,
        internal_traffic_policy: _,
        ip_families: _,
        ip_family_policy: _,
        load_balancer_class: _,
        load_balancer_ip: _,
        load_balancer_source_ranges: _,
        ports: _,
        publish_not_ready_addresses: _,
        selector: _,
        session_affinity: _,
        session_affinity_config: _,
        traffic_distribution: _,
        type_: _,
    } = ServiceSpec::default();
    let document = include_str!("../docs/admission.md");
    let table = document.split("## Fields of a leader Service\n").nth(1).expect("the section");
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows: Vec<(Vec<&str>, &str)> = rows
        .map(|row| row.split_once(" | ").unwrap())
        .map(|(fields, rest)| (fields.trim_end_matches('`').split("`, `").collect(), rest))
        .collect();
    let mut named: Vec<&str> = rows.iter().flat_map(|(fields, _)| fields.clone()).collect();
    named.sort_unstable();
    let all = "allocateLoadBalancerNodePorts clusterIP clusterIPs externalIPs externalName \
               externalTrafficPolicy healthCheckNodePort internalTrafficPolicy ipFamilies \
               ipFamilyPolicy loadBalancerClass loadBalancerIP loadBalancerSourceRanges ports \
               publishNotReadyAddresses selector sessionAffinity sessionAffinityConfig \
               trafficDistribution type";
    assert_eq!(named, all.split_whitespace().collect::<Vec<_>>());
    for (fields, rest) in rows {
        for field in fields {
            let protected = PROTECTION.contains(&format!("[\"spec.{field}\"]"));
            assert_eq!(rest.contains("| refused"), protected, "{field}");
        }
    }
    for label in [keys::kubernetes::SERVICE_PROXY_NAME, keys::kubernetes::HEADLESS] {
        assert!(
            table.contains(&format!("label `{label}`")) && PROTECTION.contains(label),
            "{label}"
        );
    }
}
