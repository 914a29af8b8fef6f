//! What admission may ask of the index: the neighbours of a Service, under a read lock.

use k8s_openapi::api::core::v1::Service;

use super::namespace::Namespace;
use super::service::{Role, selector};
use super::{Index, LabelPairs, Reached};
use crate::settings::{self, LeaderOf, LeaderSpec};

/// What is known of another Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbour {
    /// Uid of that Service, where it has one.
    pub uid: Option<String>,
    /// Whose leader Service it is, where it is ours ([`settings::leader_of`]).
    pub leader_of: Option<LeaderOf>,
}

impl Index {
    /// What is known of the Service of this name.
    pub fn neighbour(&self, namespace: &str, name: &str) -> Option<Neighbour> {
        let entry = self.namespaces.get(namespace)?.service(name)?;
        let leader_of = match &entry.role {
            Role::Leader(leader) => settings::leader_of(&leader.object.opened()),
            _ => None,
        };
        Some(Neighbour { uid: Some(entry.uid.to_string()), leader_of })
    }

    /// Sources that ask for this name for their leader Service.
    pub fn claimants(&self, namespace: &str, leader_name: &str) -> Vec<String> {
        let ns = self.namespaces.get(namespace);
        ns.into_iter().flat_map(|ns| ns.claimants(leader_name)).map(ToString::to_string).collect()
    }

    /// The bound of enabled Services of a namespace, where it is reached.
    pub fn services_at_limit(&self, namespace: &str) -> Option<Reached> {
        let bound = self.limits.services_per_namespace;
        let found = self.namespaces.get(namespace).map_or(0, Namespace::enabled);
        (bound > 0 && found >= bound).then_some(Reached { found, bound })
    }

    /// The bound of pods of a Service, where more are selected.
    pub fn pods_beyond_limit(&self, namespace: &str, service: &Service) -> Option<Reached> {
        let bound = self.limits.pods_per_service;
        let ns = self.namespaces.get(namespace)?;
        let wanted: Vec<(&str, &str)> = selector(service).collect();
        // Pods that were never listed, or are no longer watched, are not counted: reconcile will.
        let known = self.pods_seen.is_some() || ns.pods_seen.is_some();
        if bound == 0 || !known || wanted.is_empty() || ns.pods().len() <= bound {
            return None;
        }
        let found = ns.pods().filter(|pod| pod.has_labels(&wanted)).count();
        (found > bound).then_some(Reached { found, bound })
    }

    /// Every enabled, valid source of a namespace.
    pub fn each_source(
        &self,
        namespace: &str,
        visit: &mut dyn FnMut(&str, &LabelPairs, &LeaderSpec),
    ) {
        let Some(ns) = self.namespaces.get(namespace) else { return };
        for name in ns.enabled_sources() {
            let entry = ns.service(name);
            if let Some((source, spec)) = entry.and_then(|e| Some((e.source()?, e.spec()?))) {
                visit(name, &source.selector, spec);
            }
        }
    }

    /// Whether one of the selected pods uses the network of its node.
    pub fn on_host_network(&self, namespace: &str, service: &Service) -> bool {
        let wanted: Vec<(&str, &str)> = selector(service).collect();
        let known = self.namespaces.get(namespace);
        !wanted.is_empty()
            && known.is_some_and(|ns| {
                ns.pods().any(|p| p.template.host_network && p.has_labels(&wanted))
            })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{NAMESPACE, Object, ServiceFixture, pod, service};
    use crate::index::Limits;
    use crate::names::NameRule;
    use crate::version::Rv;

    #[test]
    fn pods_on_the_host_network_are_found_by_the_selector() {
        let service = |app: &str| -> Service {
            serde_json::from_value(json!({"spec": {"selector": {"app": app}}})).unwrap()
        };
        let pod = |name: &str, host: bool| {
            serde_json::from_value(json!({
                "metadata": {
                    "name": name, "namespace": "shop", "uid": name, "labels": {"app": name},
                },
                "spec": {"containers": [], "hostNetwork": host},
            }))
            .unwrap()
        };
        let mut index = Index::new(NameRule::Dns1123, Limits::default());
        index.reset_pods(Some("shop"), &[pod("a", true), pod("b", false)], Rv(7));
        assert!(index.on_host_network("shop", &service("a")));
        assert!(!index.on_host_network("shop", &service("b")));
        assert!(!index.on_host_network("other", &service("a")));
        assert!(!index.on_host_network("shop", &Service::default()), "no selector selects no pod");
    }

    /// What the view says with these limits.
    fn asked<T>(limits: Limits, ask: impl Fn(&Index) -> T) -> T {
        let mut index = Index::new(NameRule::Dns1123, limits);
        let leader = service("web-leader").leading("web", "uid-web");
        let plain = service("plain").selecting("app", "web");
        let sources = ["web", "db"].map(|n| service(n).enabled().set("leader-service-name", "one"));
        for service in sources.into_iter().chain([leader, plain]) {
            index.apply_service(service);
        }
        let pods = ["a", "b", "c"].map(|name| pod(name).label("app", "web"));
        index.reset_pods(Some(NAMESPACE), &pods, Rv(7));
        ask(&index)
    }

    #[test]
    fn neighbours_are_those_of_the_same_namespace() {
        let names = |ns: &str, leader: &str| {
            let mut names = asked(Limits::default(), |index| index.claimants(ns, leader));
            names.sort();
            names
        };
        assert_eq!(names(NAMESPACE, "one"), ["db", "web"]);
        assert!(names(NAMESPACE, "two").is_empty() && names("other", "one").is_empty());
        let found =
            |ns: &str, name: &str| asked(Limits::default(), |index| index.neighbour(ns, name));
        let leader = found(NAMESPACE, "web-leader").unwrap();
        assert_eq!(leader.leader_of.map(|of| of.source).as_deref(), Some("web"));
        assert_eq!(found(NAMESPACE, "plain").unwrap().leader_of, None);
        assert_eq!(found(NAMESPACE, "web").unwrap().uid.as_deref(), Some("uid-web"));
        assert!(found(NAMESPACE, "none").is_none() && found("other", "web").is_none());
    }

    #[test]
    fn bounds_are_reached_at_the_bound_and_exceeded_beyond_it() {
        let services = |bound: usize| {
            let limits = Limits { services_per_namespace: bound, ..Limits::default() };
            asked(limits, |index| index.services_at_limit(NAMESPACE)).map(|r| (r.found, r.bound))
        };
        assert_eq!([0, 1, 2, 3].map(services), [None, Some((2, 1)), Some((2, 2)), None]);
        let pods = |bound: usize| {
            let limits = Limits { pods_per_service: bound, ..Limits::default() };
            let source = service("web").selecting("app", "web");
            asked(limits, |index| index.pods_beyond_limit(NAMESPACE, &source))
                .map(|r| (r.found, r.bound))
        };
        assert_eq!([0, 2, 3, 4].map(pods), [None, Some((3, 2)), None, None]);
    }

    #[test]
    fn only_pods_that_are_known_and_selected_are_counted() {
        let limits = Limits { pods_per_service: 2, ..Limits::default() };
        let labelled =
            |app: &str| ["a", "b", "c"].map(|n| pod(&format!("{n}-{app}")).label("app", app));
        let pods: Vec<_> = labelled("web").into_iter().chain(labelled("db")).collect();
        let source = |app: &str| service(app).selecting("app", app);
        let found = |index: &Index, source: &Service| {
            index.pods_beyond_limit(NAMESPACE, source).map(|r| r.found)
        };
        let mut index = Index::new(NameRule::Dns1123, limits);
        for pod in &pods {
            index.apply_pod(pod);
        }
        assert_eq!(
            found(&index, &source("web")),
            None,
            "there are more, or fewer: it is not known"
        );
        for scope in [Some(NAMESPACE), None] {
            let mut index = index.clone();
            index.reset_pods(scope, &pods, Rv(7));
            assert_eq!(found(&index, &source("web")), Some(3), "by the watch of {scope:?}");
            assert_eq!(found(&index, &Service::default()), None, "no selector selects no pod");
            index.delete_pod(&pod("a-web").version(8));
            assert_eq!(found(&index, &source("web")), None, "just as many as may be");
            assert_eq!(found(&index, &source("cache")), None);
        }
    }

    #[test]
    fn a_source_that_went_frees_its_place_and_its_name() {
        let limits = Limits { services_per_namespace: 2, ..Limits::default() };
        let mut index = Index::new(NameRule::Dns1123, limits);
        for name in ["web", "db"] {
            index.apply_service(service(name).enabled().set("leader-service-name", "one"));
        }
        index.delete_service(&service("db").version(2));
        index.apply_service(service("api").enabled());
        index.apply_service(service("api").version(2));
        assert_eq!(index.services_at_limit(NAMESPACE), None);
        assert_eq!(index.claimants(NAMESPACE, "one"), ["web"]);
        assert_eq!(index.claimants(NAMESPACE, "api-leader"), [""; 0]);
    }
}
