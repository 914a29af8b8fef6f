//! Draws the writes on which webhook and policies are compared: Services that are created, and Services that
//! are changed. The values of settings are drawn in `values`; what the API server says is `without_webhook`'s.

use serde_json::{Map, Value, json};
use zen_lead_core::fixtures::dice::Dice;

use super::values;
use crate::support::names;

/// The number of writes.
pub const SIZE: usize = 500;
/// One write in so many breaks a rule about other objects, each of these rules in turn.
const BESIDE: usize = 28;

/// Names and labels of what is beside the Services of the corpus (`without_webhook::surround`).
pub mod beside {
    /// A plain Service.
    pub const TAKEN: &str = "taken";
    /// A plain Service that is in the way of the default leader name of `plain`.
    pub const PLAIN: &str = "plain";
    /// The leader name of another source.
    pub const WANTED: &str = "wanted";
    /// A source, and one that follows its leader.
    pub const FIRST: &str = "first";
    pub const SECOND: &str = "second";
    /// The label `app` of more pods than a Service may have.
    pub const CROWD: &str = "crowd";
}

/// One write of a Service.
#[derive(Clone, Debug)]
pub struct Write {
    /// The Service before; none where it is created.
    pub old: Option<Value>,
    pub new: Value,
    /// The change is sent to the subresource `status`.
    pub through_status: bool,
    /// The namespace has as many enabled Services as zen-lead serves.
    pub is_full: bool,
}

impl Write {
    pub fn name(&self) -> &str {
        let meta = &self.new["metadata"];
        meta["name"].as_str().or_else(|| meta["generateName"].as_str()).unwrap()
    }

    /// The merge patch from the old Service to the new one.
    pub fn patch(&self) -> Value {
        difference(self.old.as_ref().unwrap(), &self.new)
    }

    /// What is written, for a reader of a failure.
    pub fn shown(&self) -> String {
        let text = match &self.old {
            None => self.new.to_string(),
            Some(old) => format!("{} of {old}", self.patch()),
        };
        let short: String = text.chars().take(300).collect();
        if short.len() < text.len() { format!("{short}...") } else { short }
    }
}

/// A merge patch (RFC 7386) that makes `old` into `new`.
fn difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) => _ = patch.insert(key.clone(), difference(before, value)),
            None => _ = patch.insert(key.clone(), value.clone()),
        }
    }
    Value::Object(patch)
}

/// The writes of a seed.
pub fn corpus(seed: u64) -> Vec<Write> {
    let mut dice = Dice::new(seed, 0x7c3a_11d5_9e02_4b6f);
    let write = |n: usize| {
        let mut drawing = Drawing { dice: &mut dice, name: format!("s{n:03}") };
        match (n % BESIDE, n / BESIDE) {
            (0, turn) => drawing.beside_others(turn),
            _ => drawing.write(),
        }
    };
    (0..SIZE).map(write).collect()
}

struct Drawing<'a> {
    dice: &'a mut Dice,
    name: String,
}

impl Drawing<'_> {
    fn write(&mut self) -> Write {
        if self.dice.below(5) < 2 {
            let mut new = self.plain();
            for _ in 0..=self.dice.below(2) {
                self.touch(&mut new);
            }
            if self.dice.one_in(25) {
                let meta = new["metadata"].as_object_mut().unwrap();
                let name = meta.remove("name").unwrap();
                meta.insert("generateName".to_owned(), name);
            }
            return Write { old: None, new, through_status: false, is_full: false };
        }
        let mut old = self.plain();
        for _ in 0..self.dice.of(&[0, 0, 1, 2]) {
            self.touch(&mut old);
        }
        let mut new = old.clone();
        while new == old {
            for _ in 0..=self.dice.below(2) {
                self.change(&mut new);
            }
        }
        let through_status = new["spec"] == old["spec"] && self.dice.one_in(6);
        Write { old: Some(old), new, through_status, is_full: false }
    }

    /// A Service without a mistake, which is enabled in most cases.
    fn plain(&mut self) -> Value {
        // `NAME-leader` is as long as a name may be, or longer.
        if self.dice.one_in(15) {
            let length = self.dice.of(&[55, 56, 57, 63]);
            self.name = format!("{}{}", self.name, "x".repeat(length - self.name.len()));
        }
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.name, "annotations": {}},
            "spec": {
                "selector": {"app": self.name},
                "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
            },
        });
        if !self.dice.one_in(6) {
            annotate(&mut service, names::ENABLED, "true");
        }
        for _ in 0..self.dice.below(3) {
            annotate(&mut service, values::other(self.dice), "x");
        }
        if self.dice.one_in(4) {
            service["metadata"]["labels"] = json!({"team": "blue", "zen-lead.io/sticky": "x"});
        }
        match self.dice.below(8) {
            0 | 1 => service["spec"]["clusterIP"] = json!("None"),
            2 => set_type(&mut service, "NodePort"),
            3 => set_type(&mut service, "LoadBalancer"),
            4 => service["spec"]["internalTrafficPolicy"] = json!("Local"),
            5 => service["spec"]["sessionAffinity"] = json!("ClientIP"),
            _ => {}
        }
        service
    }

    /// Something that a user adds or changes: a setting in most cases, right or wrong.
    fn touch(&mut self, service: &mut Value) {
        match self.dice.below(20) {
            0..=8 => {
                let (key, value) = values::setting(self.dice, &self.name);
                annotate(service, key, &value);
            }
            9 => annotate(service, &values::unknown(self.dice), "true"),
            10 => annotate(service, &values::status_key(self.dice), "5"),
            11 => annotate(service, names::ENABLED, &values::boolean(self.dice)),
            12 | 13 => self.mirror(service),
            15 => self.enlarge(service),
            16 if self.dice.one_in(2) => {
                service["metadata"]["labels"][names::SOURCE_LABEL] =
                    json!(self.dice.of(&["", "web"]));
            }
            14 | 16 | 17 => self.shape(service),
            18 => annotate(service, names::ENABLED, "true"),
            _ => annotate(service, values::other(self.dice), "y"),
        }
    }

    /// Something that a user does to a Service that exists.
    fn change(&mut self, service: &mut Value) {
        match self.dice.below(10) {
            0..=4 => self.touch(service),
            5 => annotate(service, names::ENABLED, self.dice.of(&["true", "false"])),
            6 => {
                let all = service["metadata"]["annotations"].as_object_mut().unwrap();
                let keys: Vec<String> = all.keys().cloned().collect();
                if !keys.is_empty() {
                    all.remove(&self.dice.of(&keys));
                }
            }
            7 => {
                service["spec"]["ports"] =
                    json!([{"name": "http", "port": 81, "protocol": "TCP", "targetPort": 8080}]);
            }
            8 => service["spec"]["selector"] = json!({"app": "other", "tier": "x"}),
            _ => match self.dice.below(4) {
                0 => service["metadata"]["labels"] = json!({"team": "red"}),
                1 => service["spec"]["publishNotReadyAddresses"] = json!(true),
                2 => service["spec"]["externalIPs"] = json!(["198.51.100.7"]),
                _ => service["metadata"]["finalizers"] = json!(["example.com/hold"]),
            },
        }
    }

    /// A mirrored Service that is published, its provider annotations, and how many of them it names.
    fn mirror(&mut self, service: &mut Value) {
        if !self.dice.one_in(4) {
            annotate(service, names::LEADER_TYPE, "mirror");
        }
        if service["spec"]["type"] != "ExternalName" && service["spec"]["clusterIP"] != "None" {
            set_type(service, self.dice.of(&["NodePort", "LoadBalancer", "ClusterIP"]));
        }
        let mut list = Vec::new();
        for _ in 0..=self.dice.below(2) {
            let key = values::provider(self.dice);
            annotate(service, key, self.dice.of(&["true", "false"]));
            match self.dice.below(3) {
                0 => list.push(key.to_owned()),
                1 => list.push(format!("-{key}")),
                _ => {}
            }
        }
        list.retain(|key| !key.contains("last-applied"));
        if !list.is_empty() {
            annotate(service, names::COPY, &list.join(" "));
        }
    }

    /// A source that has no pods, or nothing to route; or has them again.
    fn shape(&mut self, service: &mut Value) {
        match self.dice.below(6) {
            0 | 1 => _ = service["spec"].as_object_mut().unwrap().remove("selector"),
            2 | 3 if service["spec"]["clusterIP"] == "None" => {
                service["spec"].as_object_mut().unwrap().remove("ports");
            }
            2 | 3 => set_type(service, "ExternalName"),
            4 => service["spec"]["selector"] = json!({"app": self.name}),
            _ => set_type(
                service,
                if service["spec"]["clusterIP"] == "None" { "ClusterIP" } else { "NodePort" },
            ),
        }
    }

    /// More than zen-lead reads, or just as much.
    fn enlarge(&mut self, service: &mut Value) {
        let many = |n: usize| (0..n).map(|n| (format!("k{n:03}"), json!("x")));
        match self.dice.below(7) {
            0 | 1 => {
                let n = self.dice.of(&[200, 240, 257, 300]);
                service["metadata"]["annotations"].as_object_mut().unwrap().extend(many(n));
            }
            2 | 3 => {
                let n = self.dice.of(&[30, 64, 65, 80]);
                service["spec"]["selector"] = Value::Object(many(n).collect());
            }
            4 => {
                let n = self.dice.of(&[100, 20_000]);
                annotate(service, names::COPY, &"a,".repeat(n));
            }
            5 => {
                let n = self.dice.of(&[100, 40_000]);
                annotate(service, "example.com/large", &"x".repeat(n));
            }
            _ if service["spec"]["clusterIP"] == "None" => {}
            _ => {
                set_type(service, "LoadBalancer");
                let n = self.dice.of(&[10, 2_500]);
                let ranges = (0..n).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256));
                service["spec"]["loadBalancerSourceRanges"] = ranges.collect();
            }
        }
    }

    /// A write that breaks a rule about names, chains or bounds, which only the view on other objects shows.
    fn beside_others(&mut self, turn: usize) -> Write {
        let kind = turn % 7;
        match kind {
            0 => beside::PLAIN.clone_into(&mut self.name),
            1 => beside::WANTED.clone_into(&mut self.name),
            _ => {}
        }
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.name, "annotations": {names::ENABLED: "true"}},
            "spec": {"selector": {"app": self.name}, "ports": [{"port": 80}]},
        });
        match kind {
            2 => annotate(&mut service, names::LEADER_NAME, beside::TAKEN),
            3 => annotate(&mut service, names::LEADER_NAME, beside::WANTED),
            4 => annotate(&mut service, "zen-lead.io/same-leader-as", beside::SECOND),
            5 => service["spec"]["selector"]["app"] = json!(beside::CROWD),
            _ => {}
        }
        annotate(&mut service, values::other(self.dice), &turn.to_string());
        // Created, or turned on.
        let mut old = None;
        if kind > 1 && self.dice.one_in(2) {
            let mut off = service.clone();
            off["metadata"]["annotations"].as_object_mut().unwrap().remove(names::ENABLED);
            old = Some(off);
        }
        Write { old, new: service, through_status: false, is_full: kind == 6 }
    }
}

fn annotate(service: &mut Value, key: &str, value: &str) {
    service["metadata"]["annotations"][key] = json!(value);
}

/// Another type, without the fields that the API server does not take with it.
fn set_type(service: &mut Value, name: &str) {
    let spec = service["spec"].as_object_mut().unwrap();
    spec.insert("type".to_owned(), json!(name));
    if name != "LoadBalancer" {
        spec.remove("loadBalancerSourceRanges");
    }
    if name == "ExternalName" {
        spec.insert("externalName".to_owned(), json!("example.com"));
        spec.remove("internalTrafficPolicy");
    } else {
        spec.remove("externalName");
    }
}
