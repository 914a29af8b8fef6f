//! Draws walks: the shape of the namespace, and the moves in it.

mod bookkeeping;
mod surroundings;

use serde_json::{Value, json};

use super::moves::{Move, Who};
use super::raw::{How, Kind, On, SLICE};
use crate::support::names;
use zen_lead_core::fixtures::dice::Dice;

/// The start of a walk, and its moves.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Merged into the source when it is created.
    pub source: Value,
    /// The protecting policies hold in the namespace.
    pub protected: bool,
    /// The number of moves before the source is created.
    pub early: usize,
    pub moves: Vec<Move>,
}

/// Draws the walk of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut dice = Dice::new(seed, 0x2545_f491_4f6c_dd1d);
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
    // Short walks show a cause at once, long ones show how causes interact.
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
    /// Pieces of evidence that were removed: one is repaired, more may be too many.
    evidence: usize,
}

/// Annotations that cloud controllers and tools write on Services.
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

    /// Before there is a source.
    fn early(&mut self) -> Move {
        match self.dice.below(4) {
            0 => self.squat(),
            1 => Move::Hook(self.hook()),
            2 => self.quota(),
            _ => squatted_slice(
                &self.dice.of(&[json!({}), json!({names::SERVICE_NAME: "web-leader"})]),
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
}

/// A merge patch; plain users have no right on slices, so a controller does it.
fn merge(who: Who, on: On, patch: Value) -> Move {
    let who = if on.0 == Kind::Slice && who == Who::Alice { Who::Robot } else { who };
    Move::Patch { who, on, sub: "", how: How::Merge, patch }
}

/// A mark on objects of strangers, to recognize them.
pub const STRANGER: &str = "example.com/stranger";

/// A stranger's EndpointSlice with the name that ours would have.
pub fn squatted_slice(labels: &Value) -> Move {
    let object = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": SLICE.1, "labels": labels, "annotations": {STRANGER: "true"}}, "addressType": "IPv4", "endpoints": []});
    Move::Create { who: Who::Robot, kind: Kind::Slice, object }
}
