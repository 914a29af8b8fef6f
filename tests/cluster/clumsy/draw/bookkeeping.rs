//! Draws changes of the marks and reports on Services and slices, and of these objects as a whole.

use serde_json::{Value, json};

use super::{Drawing, STRANGE_ANNOTATIONS, merge};
use crate::clumsy::moves::{Keep, Move, Who};
use crate::clumsy::raw::{Cascade, How, LEADER, On, SLICE, WEB};
use crate::support::names;

impl Drawing {
    /// A label by which zen-lead recognizes its own objects.
    pub(super) fn evidence(&mut self) -> Move {
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
        merge(who, on, json!({"metadata": {"labels": {key: value}}}))
    }

    pub(super) fn owners(&mut self) -> Move {
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

    pub(super) fn label_or_annotation(&mut self) -> Move {
        let who = self.who();
        let on = self.dice.of(&[WEB, LEADER, SLICE]);
        if self.dice.one_in(2) {
            let (key, value) = self.dice.of(&STRANGE_ANNOTATIONS);
            return merge(who, on, json!({"metadata": {"annotations": {key: value}}}));
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
        merge(who, on, json!({"metadata": {"annotations": {key: value}}}))
    }

    /// A condition of another controller, whole or malformed, or one of ours edited.
    pub(super) fn condition(&mut self) -> Move {
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

    pub(super) fn finalizer(&mut self) -> Move {
        let who = self.who();
        let on = self.dice.of(&[WEB, LEADER, SLICE]);
        let value = self.dice.of(&[json!(["example.com/hold"]), Value::Null]);
        merge(who, on, json!({"metadata": {"finalizers": value}}))
    }

    pub(super) fn delete(&mut self) -> Move {
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

    pub(super) fn restore(&mut self) -> Move {
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

    /// An edit of our objects.
    pub(super) fn by_hand(&mut self) -> Move {
        let who = self.who();
        match self.dice.below(6) {
            0 => merge(who, SLICE, json!({"endpoints": []})),
            1 => merge(who, SLICE, json!({"ports": []})),
            2 => merge(who, LEADER, json!({"spec": {"selector": {"app": "web"}}})),
            3 => merge(who, LEADER, json!({"spec": {"ports": [{"name": "http", "port": 81}]}})),
            4 => merge(who, LEADER, json!({"spec": {"type": "NodePort"}})),
            _ => merge(who, LEADER, json!({"spec": {"sessionAffinity": "ClientIP"}})),
        }
    }
}
