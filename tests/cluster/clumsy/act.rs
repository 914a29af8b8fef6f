//! Does the moves of a walk in its namespace. Refusals are part of the walk.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::hooks::Hook;
use super::moves::{Keep, Move, PodMove, Who};
use super::raw::{self, Answer, Cascade, Hand, How, Kind, LEADER, On, SLICE, WEB};
use crate::support::case::Case;
use crate::support::objects::{hollow, source_json};

/// One restart at a time, for all walks.
static RESTARTS: Mutex<()> = Mutex::const_new(());

/// A namespace with clumsy users.
pub struct Ground {
    pub t: Arc<Case>,
    pub admin: Hand,
    alice: Hand,
    robot: Hand,
    glass: Hand,
    dump: Vec<(On, Value)>,
    pub hooks: Vec<(Hook, String)>,
    /// There have been webhooks of others.
    pub hooked: bool,
    quotas: Vec<String>,
    made: usize,
    /// Further enabled Services.
    pub crowd: usize,
}

impl Ground {
    pub async fn new(t: Arc<Case>) -> Self {
        let (admin, alice) = (Hand::admin(&t), Hand::alice(&t));
        let (robot, glass) = (Hand::robot(&t).await, Hand::glass(&t).await);
        let (dump, hooks, quotas) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            t,
            admin,
            alice,
            robot,
            glass,
            dump,
            hooks,
            hooked: false,
            quotas,
            made: 0,
            crowd: 0,
        }
    }

    pub fn hand(&self, who: Who) -> &Hand {
        match who {
            Who::Alice => &self.alice,
            Who::Robot => &self.robot,
            Who::Glass => &self.glass,
        }
    }

    /// Creates the source as alice. She tries again while the replica with the webhook is restarted.
    pub async fn source(&self, patch: &Value) -> Answer<Value> {
        let mut object = source_json("web", &json!({"spec": {"selector": {"app": "web"}}}));
        json_patch::merge(&mut object, patch);
        self.insisting(|| self.alice.create(Kind::Service, &object)).await
    }

    /// Calls again while our own webhook gives no answer.
    pub(super) async fn insisting<T, F: Future<Output = Answer<T>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Answer<T> {
        for _ in 0..40 {
            match call().await {
                Err((500, words)) if words.contains("zen-lead.io\": failed to call") => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                answer => return answer,
            }
        }
        call().await
    }

    /// Does one move; returns the text of a refusal.
    pub async fn act(&mut self, what: &Move) -> Answer<()> {
        match what {
            Move::Patch { who, on, sub, how, patch } => {
                self.hand(*who).patch(*on, sub, *how, patch).await.map(drop)
            }
            Move::Create { who, kind, object } => {
                self.hand(*who).create(*kind, object).await.map(drop)
            }
            Move::Delete { who, on, cascade } => {
                self.hand(*who).delete(*on, *cascade).await.map(drop)
            }
            Move::LabelAll { who, key, value } => {
                for service in self.admin.list(Kind::Service).await? {
                    let name = raw::text(&service, "/metadata/name");
                    let on = if name == WEB.1 { WEB } else { LEADER };
                    let patch = json!({"metadata": {"labels": {*key: value}}});
                    self.hand(*who).merge(on, &patch).await?;
                }
                Ok(())
            }
            Move::Dump => {
                self.dump.clear();
                for on in [WEB, LEADER, SLICE] {
                    if let Some(object) = self.admin.get(on).await? {
                        self.dump.push((on, object));
                    }
                }
                Ok(())
            }
            Move::Restore { who, on, keep } => self.restore(*who, on, *keep).await,
            Move::Hook(hook) => {
                self.made += 1;
                let name = format!("{}-{}", self.t.ns, self.made);
                hook.register(&self.admin, &name).await;
                self.hooks.push((*hook, name));
                self.hooked = true;
                Ok(())
            }
            Move::Unhook => {
                for (hook, name) in std::mem::take(&mut self.hooks) {
                    hook.unregister(&self.admin, &name).await;
                }
                Ok(())
            }
            Move::Quota { resource, hard } => {
                self.made += 1;
                let name = format!("quota-{}", self.made);
                let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
                    "metadata": {"name": name}, "spec": {"hard": {*resource: hard.to_string()}}});
                self.admin.create(Kind::Quota, &quota).await?;
                self.quotas.push(name);
                Ok(())
            }
            Move::Unquota => {
                for name in std::mem::take(&mut self.quotas) {
                    let path = format!("{}/{name}", Kind::Quota.path(&self.admin.ns));
                    self.admin.call("DELETE", &path, "application/json", &Value::Null).await?;
                }
                Ok(())
            }
            Move::Pod(name, what) => self.pod(name, *what).await,
            Move::Flips(patches) => {
                for patch in patches {
                    self.alice.merge(WEB, patch).await?;
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                Ok(())
            }
            Move::Crowd(n) => {
                for n in 0..*n {
                    let object = source_json(
                        &format!("c{n}"),
                        &json!({"spec": {"selector": {"app": "web"}}}),
                    );
                    self.alice.create(Kind::Service, &object).await?;
                    self.crowd += 1;
                }
                Ok(())
            }
            Move::Restart(replica) => {
                let _one = RESTARTS.lock().await;
                let product = &self.t.world.product;
                product.kill(*replica);
                product.spawn(*replica, &[]);
                product.until_ready(*replica).await;
                Ok(())
            }
            Move::LoseWhileWritten => self.lose_while_written().await,
            Move::Wait(ms) => {
                tokio::time::sleep(Duration::from_millis(*ms)).await;
                Ok(())
            }
        }
    }

    async fn restore(&self, who: Who, on: &[On], keep: Keep) -> Answer<()> {
        let dumped = || self.dump.iter().filter(|(o, _)| on.contains(o));
        for (on, _) in dumped() {
            let _ = self.hand(who).delete(*on, Cascade::Background).await;
        }
        // With a limit: a finalizer may hold one of them.
        for _ in 0..40 {
            let mut left = 0;
            for (on, _) in dumped() {
                left += usize::from(self.admin.get(*on).await?.is_some());
            }
            if left == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let mut last = Ok(());
        for (on, object) in dumped() {
            let mut object = object.clone();
            let metadata = object["metadata"].as_object_mut().unwrap();
            metadata.remove("resourceVersion");
            metadata.remove("managedFields");
            if !keep.uid {
                metadata.remove("uid");
                metadata.remove("creationTimestamp");
            }
            if !keep.owners {
                metadata.remove("ownerReferences");
            }
            if !keep.status {
                object.as_object_mut().unwrap().remove("status");
            }
            if let Err(refused) = self.hand(who).create(on.0, &object).await {
                last = Err(refused);
            }
        }
        last
    }

    pub(super) async fn pod(&self, name: &'static str, what: PodMove) -> Answer<()> {
        let on = On(Kind::Pod, name);
        match what {
            PodMove::Ready(ready) => {
                let status = crate::support::objects::status(ready, &[]);
                self.admin.patch(on, "status", How::Merge, &status).await.map(drop)
            }
            PodMove::Vanish => self.admin.delete(on, Cascade::Background).await.map(drop),
            PodMove::Come => {
                if self.admin.get(on).await?.is_none() {
                    self.t.pod(hollow(name, "web").dual()).await;
                }
                Ok(())
            }
            PodMove::Relabel(ours) => {
                let app = if ours { "web" } else { "else" };
                let patch = json!({"metadata": {"labels": {"app": app}}});
                self.admin.merge(on, &patch).await.map(drop)
            }
        }
    }

    /// The pod that the slice names.
    pub async fn leading(&self) -> Option<String> {
        let slice = self.admin.get(SLICE).await.ok()??;
        let endpoint = &slice["endpoints"][0];
        (endpoint["conditions"]["ready"] != false)
            .then(|| raw::text(endpoint, "/targetRef/name").to_owned())
            .filter(|name| !name.is_empty())
    }

    async fn lose_while_written(&self) -> Answer<()> {
        let Some(leader) = self.leading().await else { return Ok(()) };
        let pod: &'static str = if leader == "p1" { "p1" } else { "p2" };
        let write = |writer: u32| async move {
            for n in 0..10 {
                let key = format!("example.com/writer-{writer}");
                let patch = json!({"metadata": {"annotations": {key: n.to_string()}}});
                let _ = self.robot.merge(SLICE, &patch).await;
            }
        };
        let written = async { tokio::join!(write(1), write(2), write(3), write(4)) };
        let lost = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.pod(pod, PodMove::Ready(false)).await
        };
        tokio::join!(written, lost).1
    }
}
