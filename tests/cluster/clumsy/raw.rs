//! Objects as JSON, read and written without types, because malformed objects are the point here.

use http::Request;
use kube::Client;
use serde_json::{Value, json};

use crate::support::case::Case;
use crate::support::cluster::Cluster;

/// The group whose members the protecting policies let through.
const BREAK_GLASS: &str = "zen-lead:break-glass";

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Service,
    Slice,
    Pod,
    Quota,
    Event,
    Role,
    RoleBinding,
}

impl Kind {
    /// Group and version in a path, and the resource.
    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Service => ("api/v1", "services"),
            Self::Slice => ("apis/discovery.k8s.io/v1", "endpointslices"),
            Self::Pod => ("api/v1", "pods"),
            Self::Quota => ("api/v1", "resourcequotas"),
            Self::Event => ("apis/events.k8s.io/v1", "events"),
            Self::Role => ("apis/rbac.authorization.k8s.io/v1", "roles"),
            Self::RoleBinding => ("apis/rbac.authorization.k8s.io/v1", "rolebindings"),
        }
    }

    pub fn resource(self) -> &'static str {
        self.place().1
    }

    /// The collection in a namespace.
    pub fn path(self, ns: &str) -> String {
        let (version, resource) = self.place();
        format!("/{version}/namespaces/{ns}/{resource}")
    }
}

/// One object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct On(pub Kind, pub &'static str);

pub const WEB: On = On(Kind::Service, "web");
pub const LEADER: On = On(Kind::Service, "web-leader");
pub const SLICE: On = On(Kind::Slice, "web-leader-zen-lead-ipv4");

/// How a patch is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Merge,
    Json,
}

/// What happens to dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cascade {
    Background,
    Foreground,
    Orphan,
}

/// The client of one user in one namespace.
#[derive(Clone)]
pub struct Hand {
    pub client: Client,
    pub ns: String,
}

/// An error of the API server: its code and text.
pub type Answer<T> = Result<T, (u16, String)>;

impl Hand {
    pub fn admin(t: &Case) -> Self {
        Self { client: t.admin(), ns: t.ns.clone() }
    }

    pub fn alice(t: &Case) -> Self {
        Self { client: t.world.user.clone(), ns: t.ns.clone() }
    }

    /// A controller of the namespace: the role `edit`, and the further rights of controllers.
    pub async fn robot(t: &Case) -> Self {
        let admin = Self::admin(t);
        let name = "robot";
        let rules = json!([
            {"apiGroups": [""], "resources": ["services", "services/status", "pods"], "verbs": ["*"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["*"]},
        ]);
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name}, "rules": rules});
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": t.ns}]});
        let _ = admin.create(Kind::Role, &role).await;
        let _ = admin.create(Kind::RoleBinding, &binding).await;
        let user = format!("system:serviceaccount:{}:{name}", t.ns);
        Self { client: acting_as(&t.world.cluster, &user, &[]).await, ns: t.ns.clone() }
    }

    /// An admin in the break-glass group: the policies let it through.
    pub async fn glass(t: &Case) -> Self {
        let groups = [BREAK_GLASS, "system:masters"];
        Self { client: acting_as(&t.world.cluster, "carol", &groups).await, ns: t.ns.clone() }
    }

    pub async fn call(&self, verb: &str, path: &str, kind: &str, body: &Value) -> Answer<Value> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(verb).uri(path).header("Content-Type", kind);
        match self.client.request::<Value>(request.body(body).unwrap()).await {
            Ok(value) => Ok(value),
            Err(kube::Error::Api(status)) => Err((status.code, status.message.clone())),
            Err(error) => Err((0, error.to_string())),
        }
    }

    fn one(&self, on: On) -> String {
        format!("{}/{}", on.0.path(&self.ns), on.1)
    }

    /// The object, where there is one.
    pub async fn get(&self, on: On) -> Answer<Option<Value>> {
        match self.call("GET", &self.one(on), JSON, &Value::Null).await {
            Ok(value) => Ok(Some(value)),
            Err((404, _)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    pub async fn list(&self, kind: Kind) -> Answer<Vec<Value>> {
        let mut list = self.call("GET", &kind.path(&self.ns), JSON, &Value::Null).await?;
        Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    pub async fn create(&self, kind: Kind, object: &Value) -> Answer<Value> {
        self.call("POST", &kind.path(&self.ns), JSON, object).await
    }

    pub async fn patch(&self, on: On, sub: &str, how: How, patch: &Value) -> Answer<Value> {
        let at = if sub.is_empty() { self.one(on) } else { format!("{}/{sub}", self.one(on)) };
        let kind = match how {
            How::Merge => "application/merge-patch+json",
            How::Json => "application/json-patch+json",
        };
        self.call("PATCH", &at, kind, patch).await
    }

    /// Merges a patch into the object.
    pub async fn merge(&self, on: On, patch: &Value) -> Answer<Value> {
        self.patch(on, "", How::Merge, patch).await
    }

    pub async fn delete(&self, on: On, cascade: Cascade) -> Answer<Value> {
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
            "propagationPolicy": format!("{cascade:?}"),
            "gracePeriodSeconds": if on.0 == Kind::Pod { json!(0) } else { Value::Null }});
        self.call("DELETE", &self.one(on), JSON, &options).await
    }
}

const JSON: &str = "application/json";

/// A client that acts as another user.
async fn acting_as(cluster: &Cluster, user: &str, groups: &[&str]) -> Client {
    let config = kube::config::Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
    let mut config =
        kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
    config.auth_info.impersonate = Some(user.to_owned());
    if !groups.is_empty() {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        config.auth_info.impersonate_groups = Some(groups);
    }
    Client::try_from(config).unwrap()
}

/// A text in an object, empty where there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A label.
pub fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"]["labels"][key].as_str().unwrap_or_default()
}

/// An annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"]["annotations"][key].as_str().unwrap_or_default()
}

/// The condition of ours on a Service.
pub fn condition(service: &Value) -> Option<&Value> {
    let all = service["status"]["conditions"].as_array()?;
    all.iter().find(|c| c["type"] == crate::support::names::READY)
}
