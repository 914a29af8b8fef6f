//! Draws walks: the shape of the namespace, and the moves in it.

use serde_json::{Value, json};

use super::dice::Dice;
use super::hooks::{Does, Hook};
use super::moves::{Keep, Move, PodMove, Who};
use super::raw::{Cascade, How, Kind, LEADER, On, SLICE, WEB};
use super::seen::PROXY_NAME;
use crate::support::names;

/// What the walk begins with, and its moves.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Merged into the source when it is created.
    pub source: Value,
    /// The protecting policies hold in the namespace.
    pub protected: bool,
    /// So many moves come before the source is created.
    pub early: usize,
    pub moves: Vec<Move>,
}

/// Draws the walk of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut dice = Dice::new(seed);
    let source = match dice.below(4) {
        0 => json!({}),
        1 => mirror("NodePort", &json!({"type": "NodePort"})),
        _ if dice.one_in(2) => json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}}),
        2 => mirror(
            "LoadBalancer",
            &json!({"type": "LoadBalancer",
            "loadBalancerSourceRanges": ["192.0.2.0/24"]}),
        ),
        _ => mirror(
            "LoadBalancer",
            &json!({"type": "LoadBalancer",
            "loadBalancerClass": "example.com/one"}),
        ),
    };
    let protected = dice.one_in(2);
    let mut hand = Drawing { evidence: 0, dice };
    let mut moves = Vec::new();
    let mut early = 0;
    if hand.dice.one_in(3) {
        early = 1 + hand.dice.below(2);
        (0..early).for_each(|_| moves.push(hand.early()));
    }
    // Short ones show a cause at once, long ones what causes do to each other.
    let count = if hand.dice.one_in(2) { 1 + hand.dice.below(4) } else { 10 + hand.dice.below(16) };
    while moves.len() < count {
        let next = hand.any();
        moves.push(next);
        if hand.dice.one_in(4) {
            let ms = hand.dice.of(&[50, 300, 1500]);
            moves.push(Move::Wait(ms));
        }
    }
    Plan { seed, source, protected, early, moves }
}

fn mirror(_: &str, spec: &Value) -> Value {
    json!({"metadata": {"annotations": {names::LEADER_TYPE: "mirror"}}, "spec": spec})
}

struct Drawing {
    dice: Dice,
    /// Pieces of evidence that were taken away: one is repaired, more may be too many.
    evidence: usize,
}

/// What cloud controllers and tools write on Services.
const STRANGE_ANNOTATIONS: [(&str, &str); 9] = [
    ("kubernetes.digitalocean.com/load-balancer-id", "4de7ac8b"),
    ("loadbalancer.openstack.org/load-balancer-id", "a1b2"),
    ("service.beta.kubernetes.io/scw-loadbalancer-id", "fr-par-1/11"),
    ("kube-vip.io/loadbalancerIPs", "192.0.2.10"),
    ("service.kubernetes.io/tcp-forwarding-rule-ipv6", "x"),
    ("meta.helm.sh/release-name", "internal"),
    ("example.com/team", "private"),
    ("metallb.io/ip-allocated-from-pool", "default"),
    ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
];

impl Drawing {
    fn who(&mut self) -> Who {
        self.dice.of(&[Who::Alice, Who::Robot, Who::Glass])
    }

    fn merge(&mut self, who: Who, on: On, patch: Value) -> Move {
        Move::Patch { who, on, sub: "", how: How::Merge, patch }
    }

    /// Before there is a source.
    fn early(&mut self) -> Move {
        match self.dice.below(4) {
            0 => self.squat(),
            1 => Move::Hook(self.hook()),
            2 => self.quota(),
            _ => squatted_slice(
                self.dice.of(&[json!({}), json!({names::SERVICE_NAME: "web-leader"})]),
            ),
        }
    }

    fn any(&mut self) -> Move {
        match self.dice.below(24) {
            0 | 1 => self.evidence(),
            2 => self.owners(),
            3 | 4 => self.label_or_annotation(),
            5 | 6 => self.condition(),
            7 => self.finalizer(),
            8 | 9 => self.delete(),
            10 => Move::Dump,
            11 => self.restore(),
            12 | 13 => Move::Hook(self.hook()),
            14 => Move::Unhook,
            15 => self.quota(),
            16 => {
                if self.dice.one_in(2) {
                    Move::Unquota
                } else {
                    self.squat()
                }
            }
            17 | 18 => self.conversion(),
            19 | 20 => self.pod(),
            21 => self.cloud(),
            22 => match self.dice.below(4) {
                0 => Move::Restart(self.dice.below(2)),
                1 => Move::Crowd(self.dice.of(&[6, 30])),
                _ => Move::LoseWhileWritten,
            },
            _ => self.by_hand(),
        }
    }

    /// A label by which we know our own.
    fn evidence(&mut self) -> Move {
        if self.evidence > 0 {
            return self.label_or_annotation();
        }
        self.evidence += 1;
        let who = self.who();
        let (on, key) = self.dice.of(&[
            (LEADER, names::MANAGED_BY),
            (LEADER, names::SOURCE_LABEL),
            (SLICE, names::SLICE_MANAGED_BY),
            (SLICE, names::SERVICE_NAME),
            (SLICE, names::SOURCE_LABEL),
        ]);
        if on == LEADER && key == names::MANAGED_BY && self.dice.one_in(2) {
            return Move::LabelAll { who: Who::Alice, key, value: "Helm" };
        }
        let value = if self.dice.one_in(2) { Value::Null } else { json!("Helm") };
        self.merge(who, on, json!({"metadata": {"labels": {key: value}}}))
    }

    fn owners(&mut self) -> Move {
        let who = self.who();
        let on = self.dice.of(&[LEADER, SLICE]);
        if self.evidence > 0 {
            let other = json!([{"op": "add", "path": "/metadata/ownerReferences/-", "value":
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "other",
                 "uid": "6f1b7a3e-0000-4000-8000-000000000001"}}]);
            return Move::Patch { who, on, sub: "", how: How::Json, patch: other };
        }
        self.evidence += 1;
        let patch = match self.dice.below(3) {
            0 => json!([{"op": "replace", "path": "/metadata/ownerReferences/0/controller",
                "value": false}]),
            1 => json!([{"op": "replace", "path": "/metadata/ownerReferences/0/name",
                "value": "else"}]),
            _ => json!([{"op": "remove", "path": "/metadata/ownerReferences"}]),
        };
        Move::Patch { who, on, sub: "", how: How::Json, patch }
    }

    fn label_or_annotation(&mut self) -> Move {
        let who = self.who();
        let on = self.dice.of(&[WEB, LEADER, SLICE]);
        if self.dice.one_in(2) {
            let (key, value) = self.dice.of(&STRANGE_ANNOTATIONS);
            return self.merge(who, on, json!({"metadata": {"annotations": {key: value}}}));
        }
        let ours = [
            "epoch",
            "decided-at",
            "write-id",
            "leader-pod-uid",
            "leader-pod-name",
            "leader-epoch",
            "current-leader",
            "decision-version",
            "effective-settings",
            "asked",
            "copied-annotations",
            "not-ready-since",
        ];
        let key = format!("{}{}", names::PREFIX, self.dice.of(&ours));
        let value =
            self.dice.of(&[Value::Null, json!(""), json!("nonsense"), json!("99999999999999")]);
        let on = self.dice.of(&[LEADER, SLICE]);
        self.merge(who, on, json!({"metadata": {"annotations": {key: value}}}))
    }

    /// A condition of somebody's, whole or malformed, or one of ours edited.
    fn condition(&mut self) -> Move {
        let on = self.dice.of(&[WEB, WEB, LEADER]);
        let time = "2026-01-01T00:00:00Z";
        let condition = match self.dice.below(5) {
            0 => json!({"type": "x.example/Ready", "status": "True", "reason": "Fine",
                "message": "", "lastTransitionTime": time}),
            1 => json!({"type": names::READY, "status": "True", "reason": "AllIsWell",
                "message": "alice says so", "lastTransitionTime": time}),
            2 => json!({"type": names::READY, "status": "False", "reason": "", "message": ""}),
            _ => json!({"type": "x.example/Ready", "status": "True", "reason": "", "message": ""}),
        };
        let patch = json!({"status": {"conditions": [condition]}});
        Move::Patch { who: Who::Robot, on, sub: "status", how: How::Merge, patch }
    }

    fn finalizer(&mut self) -> Move {
        let who = self.who();
        let on = self.dice.of(&[WEB, LEADER, SLICE]);
        let value = self.dice.of(&[json!(["example.com/hold"]), Value::Null]);
        self.merge(who, on, json!({"metadata": {"finalizers": value}}))
    }

    fn delete(&mut self) -> Move {
        let who = self.who();
        let on = self.dice.of(&[LEADER, LEADER, SLICE, WEB]);
        let cascade = self.dice.of(&[
            Cascade::Background,
            Cascade::Orphan,
            Cascade::Orphan,
            Cascade::Foreground,
        ]);
        Move::Delete { who, on, cascade }
    }

    fn restore(&mut self) -> Move {
        let who = self.dice.of(&[Who::Alice, Who::Glass, Who::Glass]);
        let on: &'static [On] = self.dice.of(&[
            &[WEB, LEADER, SLICE] as &[On],
            &[LEADER],
            &[LEADER, SLICE],
            &[SLICE],
            &[WEB],
        ]);
        let keep = Keep {
            uid: self.dice.one_in(2),
            owners: self.dice.one_in(2),
            status: self.dice.one_in(2),
        };
        Move::Restore { who, on, keep }
    }

    fn hook(&mut self) -> Hook {
        let (resource, operation) = self.dice.of(&[
            ("endpointslices", "UPDATE"),
            ("endpointslices", "UPDATE"),
            ("endpointslices", "CREATE"),
            ("services", "CREATE"),
            ("services", "UPDATE"),
            ("services/status", "UPDATE"),
        ]);
        let does = match self.dice.below(9) {
            0 => Does::Fail,
            1 => Does::Gone,
            2 => Does::Sleep,
            3 => Does::Label(self.dice.of(&[names::MANAGED_BY, names::SOURCE_LABEL, "team"])),
            4 => Does::Strip(self.dice.of(&[names::CURRENT, names::EPOCH, names::WRITE_ID])),
            _ => Does::Refuse(self.dice.of(&[400, 403, 409, 409, 413, 422, 500])),
        };
        Hook { resource, operation, ours: true, does }
    }

    fn quota(&mut self) -> Move {
        let (resource, hard) = self.dice.of(&[
            ("services", 1),
            ("services.nodeports", 1),
            ("services.loadbalancers", 1),
            ("count/endpointslices.discovery.k8s.io", 1),
        ]);
        Move::Quota { resource, hard }
    }

    /// A stranger's object under a name of ours.
    fn squat(&mut self) -> Move {
        let labels = self.dice.of(&[
            json!({}),
            json!({names::SLICE_MANAGED_BY: "me"}),
            json!({names::SERVICE_NAME: "web-leader", names::SLICE_MANAGED_BY: "me"}),
        ]);
        if self.dice.one_in(3) {
            let name = self.dice.of(&["web-leader", "other-leader"]);
            let spec = json!({"ports": [{"port": 80}], "selector": {"app": "else"}});
            let object = json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name}, "spec": spec});
            return Move::Create { who: self.who(), kind: Kind::Service, object };
        }
        squatted_slice(labels)
    }

    /// The source asks for something else.
    fn conversion(&mut self) -> Move {
        let annotations = |all: Value| json!({"metadata": {"annotations": all}});
        let ranges = json!({"spec": {"loadBalancerSourceRanges": ["192.0.2.0/24"]}});
        let class = |c: &str| json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": c}});
        let cluster_ip = json!({"spec": {"type": "ClusterIP", "loadBalancerClass": null,
            "loadBalancerSourceRanges": null, "externalTrafficPolicy": null}});
        let patch = match self.dice.below(15) {
            0 => annotations(json!({names::LEADER_TYPE: "ClusterIP"})),
            1 | 2 => annotations(json!({names::LEADER_TYPE: "mirror"})),
            3 => cluster_ip.clone(),
            4 => json!({"spec": {"type": "NodePort"}}),
            5 => class("example.com/two"),
            6 => ranges,
            7 => json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}}),
            8 => annotations(json!({names::STICKY: self.dice.of(&["true", "false"])})),
            9 => annotations(
                json!({names::LEADER_NAME: self.dice.of(&["other-leader", "web-leader"])}),
            ),
            10 => {
                annotations(json!({names::ENABLED: self.dice.of(&["true", "false", "nonsense"])}))
            }
            12 => {
                json!({"metadata": {"labels": {PROXY_NAME: self.dice.of(&[json!("other"), Value::Null])}}})
            }
            13 => annotations(json!({names::COPY: "example.com/team", "example.com/team": "blue"})),
            11 => {
                return Move::Flips(vec![
                    class("example.com/one"),
                    cluster_ip,
                    class("example.com/two"),
                ]);
            }
            _ => {
                let flip = |t: &str| json!({"spec": {"type": t, "loadBalancerClass": null}});
                let both = [flip("NodePort"), flip("ClusterIP")];
                return Move::Flips(both.iter().cycle().take(6).cloned().collect());
            }
        };
        self.merge(Who::Alice, WEB, patch)
    }

    fn pod(&mut self) -> Move {
        let name = self.dice.of(&["p1", "p2"]);
        Move::Pod(
            name,
            match self.dice.below(7) {
                0 => PodMove::Ready(false),
                1 | 2 => PodMove::Ready(true),
                3 => PodMove::Vanish,
                4 => PodMove::Come,
                5 => PodMove::Relabel(false),
                _ => PodMove::Relabel(true),
            },
        )
    }

    /// What a load-balancer controller writes.
    fn cloud(&mut self) -> Move {
        let on = self.dice.of(&[WEB, WEB, LEADER]);
        if self.dice.one_in(3) {
            let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.20"}]}}});
            return Move::Patch { who: Who::Robot, on, sub: "status", how: How::Merge, patch };
        }
        let (key, value) = self.dice.of(&STRANGE_ANNOTATIONS);
        self.merge(Who::Robot, on, json!({"metadata": {"annotations": {key: value}}}))
    }

    /// What is ours is edited.
    fn by_hand(&mut self) -> Move {
        let who = self.who();
        match self.dice.below(6) {
            0 => self.merge(who, SLICE, json!({"endpoints": []})),
            1 => self.merge(who, SLICE, json!({"ports": []})),
            2 => self.merge(who, LEADER, json!({"spec": {"selector": {"app": "web"}}})),
            3 => {
                self.merge(who, LEADER, json!({"spec": {"ports": [{"name": "http", "port": 81}]}}))
            }
            4 => self.merge(who, LEADER, json!({"spec": {"type": "NodePort"}})),
            _ => self.merge(who, LEADER, json!({"spec": {"sessionAffinity": "ClientIP"}})),
        }
    }
}

/// An EndpointSlice of a stranger's under the name that ours would have.
pub fn squatted_slice(labels: Value) -> Move {
    let object = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": SLICE.1, "labels": labels}, "addressType": "IPv4", "endpoints": []});
    Move::Create { who: Who::Robot, kind: Kind::Slice, object }
}
