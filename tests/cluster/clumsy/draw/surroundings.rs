//! Draws events around our objects: webhooks, quotas, names that are taken, conversions, pods.

use serde_json::{Value, json};

use super::{Drawing, STRANGE_ANNOTATIONS, STRANGER, merge, squatted_slice};
use crate::clumsy::hooks::{Does, Hook};
use crate::clumsy::moves::{Move, PodMove, Who};
use crate::clumsy::raw::{How, Kind, LEADER, WEB};
use crate::clumsy::seen::PROXY_NAME;
use crate::support::names;

impl Drawing {
    pub(super) fn hook(&mut self) -> Hook {
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

    pub(super) fn quota(&mut self) -> Move {
        let (resource, hard) = self.dice.of(&[
            ("services", 1),
            ("services.nodeports", 1),
            ("services.loadbalancers", 1),
            ("count/endpointslices.discovery.k8s.io", 1),
        ]);
        Move::Quota { resource, hard }
    }

    /// A stranger's object with a name of ours.
    pub(super) fn squat(&mut self) -> Move {
        let labels = self.dice.of(&[
            json!({}),
            json!({names::SLICE_MANAGED_BY: "me"}),
            json!({names::SERVICE_NAME: "web-leader", names::SLICE_MANAGED_BY: "me"}),
        ]);
        if self.dice.one_in(3) {
            let name = self.dice.of(&["web-leader", "other-leader"]);
            let spec = json!({"ports": [{"port": 80}], "selector": {"app": "else"}});
            let object = json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "annotations": {STRANGER: "true"}}, "spec": spec});
            return Move::Create { who: self.who(), kind: Kind::Service, object };
        }
        squatted_slice(&labels)
    }

    /// The source asks for something else.
    pub(super) fn conversion(&mut self) -> Move {
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
                return Move::Flips(both.iter().cycle().take(12).cloned().collect());
            }
        };
        merge(Who::Alice, WEB, patch)
    }

    pub(super) fn pod(&mut self) -> Move {
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

    /// A status as a load-balancer controller writes it.
    pub(super) fn cloud(&mut self) -> Move {
        let on = self.dice.of(&[WEB, WEB, LEADER]);
        if self.dice.one_in(3) {
            let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.20"}]}}});
            return Move::Patch { who: Who::Robot, on, sub: "status", how: How::Merge, patch };
        }
        let (key, value) = self.dice.of(&STRANGE_ANNOTATIONS);
        merge(Who::Robot, on, json!({"metadata": {"annotations": {key: value}}}))
    }
}
