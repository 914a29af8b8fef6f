//! The policies for installations without the webhook refuse what the webhook refuses, except for what only
//! other objects tell, and nothing else. One API server judges each write twice, as a dry run: in a namespace that
//! the webhook sees, and in one where the policies hold.

mod corpus;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use zen_lead_core::settings::Rule;

use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::objects::{annotations, hollow, source, source_set};
use crate::support::waiting::{check, until, within};
use crate::support::{http, names, policies};
use corpus::{Write, beside, corpus};

/// The seed of the corpus; ZEN_LEAD_CORPUS_SEED draws another one.
const SEED: u64 = 1;
/// How many of 100 verdicts are the same.
const SAME: usize = 95;
/// How many of 100 writes the webhook refuses.
const REFUSED: usize = 40;
/// More enabled Services than the corpus has.
const MANY: &str = "--max-services-per-namespace=400";
/// Fewer.
const FEW: &str = "--max-services-per-namespace=10";
/// Fewer pods than a Service of the corpus selects.
const PODS: &str = "--max-pods-per-service=2";

const FILE: &str = "deploy/components/without-webhook/settings.yaml";
const LABEL: &str = "zen-lead-tests/settings";

pub fn tests() -> Vec<Test> {
    let name = "the_policies_refuse_what_the_webhook_refuses_and_nothing_else";
    let body = the_policies_refuse_what_the_webhook_refuses_and_nothing_else;
    vec![Test::new(module_path!(), name, body).within(Duration::from_mins(10))]
}

/// Rules that only files can break (`zen-lead lint`).
const OF_FILES: [Rule; 2] = [Rule::NotAString, Rule::Unreadable];

/// Rules that the policies leave to zen-lead, in part or altogether: about other objects, and about sizes.
const LEFT: [Rule; 7] = [
    Rule::NameTaken,
    Rule::NameClaimed,
    Rule::OwnNameClaimed,
    Rule::SameLeader,
    Rule::NamespaceLimit,
    Rule::PodLimit,
    Rule::TooLarge,
];

async fn the_policies_refuse_what_the_webhook_refuses_and_nothing_else(t: Arc<Case>) {
    let seed = std::env::var("ZEN_LEAD_CORPUS_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let mut writes = corpus(seed);
    let pair = Pair { hooked: t.outside_as("hooked").await, ruled: t.outside_as("ruled").await };
    start(&t, MANY).await;
    policies::install(&t.world, FILE, LABEL).await;
    surround(&pair.hooked).await;
    store(&pair, &writes).await;
    pair.hooked.show_to_webhooks().await;
    policies::hold_in(&pair.ruled, LABEL).await;
    pair.until_both_judge().await;

    // The bound of Services is lowered for the last ones.
    writes.sort_by_key(|write| write.is_full);
    let mut table = Table::default();
    let mut is_full = false;
    for write in &writes {
        if write.is_full && !is_full {
            is_full = true;
            start(&t, FEW).await;
        }
        let before = violations(&t).await;
        let hooked = judge(&pair.hooked, write).await;
        let by_policy = judge(&pair.ruled, write).await;
        let rules =
            if hooked.is_some() { since(&before, &violations(&t).await) } else { BTreeSet::new() };
        table.add(write, (hooked, by_policy), rules);
    }
    println!("{}", table.text());
    table.check(&writes);
}

/// Starts the replica that the webhooks call.
async fn start(t: &Case, services: &str) {
    t.world.product.stop_all().await;
    t.world.product.spawn(0, &[services, PODS]);
    t.world.product.until_ready(0).await;
}

/// The objects whose names and numbers the webhook knows, and the policies do not.
async fn surround(t: &Case) {
    for name in [beside::TAKEN, &format!("{}-leader", beside::PLAIN)] {
        t.create(&source(name, &json!({"metadata": {"annotations": null}}))).await;
    }
    t.create(&source_set("claimer", &[(names::LEADER_NAME, beside::WANTED)])).await;
    t.create(&source_set(beside::FIRST, &[])).await;
    t.create(&source_set(beside::SECOND, &[("zen-lead.io/same-leader-as", beside::FIRST)])).await;
    for n in 0..3 {
        t.pod(hollow(&format!("{}-{n}", beside::CROWD), beside::CROWD)).await;
    }
}

/// Creates the Services that are changed later, where nothing judges them.
async fn store(pair: &Pair, writes: &[Write]) {
    let old = writes.iter().filter_map(|write| write.old.as_ref());
    let made = old.flat_map(|old| [&pair.hooked, &pair.ruled].map(|t| (t.services(), old)));
    let made = futures::stream::iter(made).for_each_concurrent(8, |(services, old)| async move {
        let service: Service = serde_json::from_value(old.clone()).unwrap();
        let made = services.create(&PostParams::default(), &service).await;
        made.unwrap_or_else(|error| panic!("{old}: {error}"));
    });
    made.await;
}

/// The two namespaces.
struct Pair {
    hooked: Case,
    ruled: Case,
}

impl Pair {
    /// Waits until webhook and policies are in force, and the webhook knows all that is beside the corpus.
    async fn until_both_judge(&self) {
        let bad = |name: &str, patch: &Value| {
            let new = serde_json::to_value(source(name, patch)).unwrap();
            Write { old: None, new, through_status: false, is_full: false }
        };
        let settings = |all: &[(&str, &str)]| annotations(all);
        for (t, write) in [
            (&self.ruled, bad("probe", &settings(&[(names::STICKY, "x")]))),
            (&self.hooked, bad("probe", &settings(&[(names::STICKY, "x")]))),
            (&self.hooked, bad("probe", &settings(&[(names::LEADER_NAME, beside::TAKEN)]))),
            (&self.hooked, bad("probe", &settings(&[(names::LEADER_NAME, beside::WANTED)]))),
            (
                &self.hooked,
                bad("probe", &settings(&[("zen-lead.io/same-leader-as", beside::SECOND)])),
            ),
            (&self.hooked, bad("probe", &json!({"spec": {"selector": {"app": beside::CROWD}}}))),
        ] {
            within(Duration::from_mins(2), format!("{} is refused", write.shown()), || async {
                check(judge(t, &write).await.is_some(), "it is allowed")
            })
            .await;
        }
        let good = bad("probe", &json!({}));
        for t in [&self.hooked, &self.ruled] {
            until("a good Service is allowed", || async {
                judge(t, &good).await.map_or(Ok(()), Err)
            })
            .await;
        }
    }
}

/// Sends a write as a dry run: the message of the refusal, if webhook or policy refuse it.
async fn judge(t: &Case, write: &Write) -> Option<String> {
    let services: Api<Service> = t.services();
    let result = if write.old.is_some() {
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let patch = Patch::Merge(write.patch());
        if write.through_status {
            services.patch_status(write.name(), &params, &patch).await
        } else {
            services.patch(write.name(), &params, &patch).await
        }
    } else {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let service = serde_json::from_value(write.new.clone()).unwrap();
        services.create(&params, &service).await
    };
    let message = match result {
        Ok(_) => return None,
        Err(kube::Error::Api(status)) => status.message.clone(),
        Err(error) => error.to_string(),
    };
    let policy = format!("ValidatingAdmissionPolicy '{}-zen-lead-settings'", t.world.system);
    let known = ["admission webhook \"validate.zen-lead.io\" denied the request", &policy];
    let refused = known.iter().any(|words| message.contains(words));
    assert!(refused, "{} in {}: {message}", write.shown(), t.ns);
    Some(message)
}

/// How often each rule was broken in reviews of the replica, by its metric.
async fn violations(t: &Case) -> BTreeMap<String, u64> {
    let text = http::get(t.world.product.admin_port(0), "/metrics").await.unwrap().body;
    let lines = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("zen_lead_webhook_violations_total{rule=\"")?;
        let (rule, number) = rest.split_once("\"} ")?;
        Some((rule.to_owned(), number.parse().unwrap()))
    });
    lines.collect()
}

/// The rules that were broken in between.
fn since(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeSet<String> {
    let grew = |(rule, n): &(&String, &u64)| *n > before.get(*rule).unwrap_or(&0);
    after.iter().filter(grew).map(|(rule, _)| rule.clone()).collect()
}

/// Both verdicts on all writes.
#[derive(Default)]
struct Table {
    /// By the webhook's and the policies' verdict: true is refused.
    cells: BTreeMap<(bool, bool), usize>,
    /// By rule: writes that break it, and how many of them the policies refuse.
    rules: BTreeMap<String, (usize, usize)>,
    stricter: Vec<String>,
    /// By the rules that a write breaks.
    weaker: BTreeMap<BTreeSet<String>, Vec<String>>,
}

impl Table {
    fn add(
        &mut self,
        write: &Write,
        (hooked, by_policy): (Option<String>, Option<String>),
        rules: BTreeSet<String>,
    ) {
        *self.cells.entry((hooked.is_some(), by_policy.is_some())).or_default() += 1;
        for rule in &rules {
            let (all, both) = self.rules.entry(rule.clone()).or_default();
            *all += 1;
            *both += usize::from(by_policy.is_some());
        }
        match (hooked, by_policy) {
            (None, Some(message)) => self.stricter.push(format!("{}: {message}", write.shown())),
            (Some(message), None) => {
                let short: String = message.chars().take(250).collect();
                let words = format!("{}\n      {short}", write.shown());
                self.weaker.entry(rules).or_default().push(words);
            }
            _ => {}
        }
    }

    fn cell(&self, webhook: bool, policies: bool) -> usize {
        self.cells.get(&(webhook, policies)).copied().unwrap_or(0)
    }

    fn text(&self) -> String {
        use std::fmt::Write as _;
        let all: usize = self.cells.values().sum();
        let same = self.cell(false, false) + self.cell(true, true);
        let mut out = format!(
            "{all} writes         | policies allow | policies refuse\n\
             webhook allows     | {:14} | {:15}\n\
             webhook refuses    | {:14} | {:15}\n\
             the same verdict: {same} of {all}, {}.{} %\n\
             rule                 | cases | same | policies weaker\n",
            self.cell(false, false),
            self.cell(false, true),
            self.cell(true, false),
            self.cell(true, true),
            same * 100 / all,
            same * 1000 / all % 10,
        );
        for (rule, (cases, same)) in &self.rules {
            let _ = writeln!(out, "{rule:20} | {cases:5} | {same:4} | {}", cases - same);
        }
        for (rules, writes) in &self.weaker {
            let _ = writeln!(out, "only the webhook refuses, for {rules:?}: {}", writes.len());
            for write in writes {
                let _ = writeln!(out, "    {write}");
            }
        }
        out
    }

    fn check(&self, writes: &[Write]) {
        let all = writes.len();
        assert_eq!(self.cells.values().sum::<usize>(), all);
        assert!(self.stricter.is_empty(), "the policies are stricter: {:#?}", self.stricter);
        let same = self.cell(false, false) + self.cell(true, true);
        assert!(same * 100 >= all * SAME, "only {same} of {all} verdicts are the same");
        for (rules, writes) in &self.weaker {
            let is_left = |rule: &String| LEFT.iter().any(|left| left.as_str() == rule);
            assert!(rules.iter().all(is_left), "only the webhook refuses {rules:?}: {writes:#?}");
        }
        let refused = self.cell(true, false) + self.cell(true, true);
        assert!(refused * 100 >= all * REFUSED, "the webhook refuses only {refused} of {all}");
        let mut rules: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.as_str()).collect();
        rules.retain(|rule| !OF_FILES.iter().any(|of_files| of_files.as_str() == *rule));
        let broken: BTreeSet<&str> = self.rules.keys().map(String::as_str).collect();
        assert_eq!(broken, rules, "each rule is broken at least once");
    }
}
