//! Self-made certificates: the CA in its Secret, the leaf in memory, the caBundle.
//!
//! ```text
//! Secret <-> secret (codec) <-> state (pure: phases of a rotation) -> leaf -> server::tls
//!                                            \-> bundle (pure: what to patch) -> configurations
//! authority: the loop around them, with the API calls
//! ```
//!
//! All replicas share one CA and write its Secret only by compare-and-swap. Each replica signs its own leaf.
//! A private key is in the Secret and in memory, never in a log.

mod authority;
mod bundle;
mod material;
mod secret;
pub mod state;

#[cfg(test)]
mod tests;

use crate::config::certificates::Certificates;
pub use authority::{Authority, AuthorityError, RotationReport};
pub use material::{Ca, CaCertificate, Leaf, MaterialError, PrivateKey};

/// Name of the item in the ValidatingWebhookConfiguration. Frozen: after a rename, server-side apply would
/// keep part of the old item.
pub const VALIDATE_ITEM: &str = "validate.zen-lead.io";
/// Name of the item in the MutatingWebhookConfiguration. Frozen as well.
pub const MUTATE_ITEM: &str = "mutate.zen-lead.io";

/// The settings of the authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PkiSettings {
    /// Namespace of zen-lead, its Secret and its Service.
    pub namespace: String,
    /// Name of the Secret with the CA.
    pub secret: String,
    /// Name of the Service through which the API server calls.
    pub service: String,
    /// Additional names or IP addresses for the leaf.
    pub extra_names: Vec<String>,
    /// Name of the ValidatingWebhookConfiguration.
    pub validating: String,
    /// Name of the MutatingWebhookConfiguration.
    pub mutating: String,
    /// Lifetimes, and the waits of a rotation.
    pub times: Certificates,
}

impl PkiSettings {
    /// The defaults: Secret `zen-lead-ca`, Service and configurations `zen-lead`.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            secret: "zen-lead-ca".into(),
            service: "zen-lead".into(),
            extra_names: Vec::new(),
            validating: "zen-lead".into(),
            mutating: "zen-lead".into(),
            times: Certificates::default(),
        }
    }

    /// The names the leaf is valid for.
    pub fn names(&self) -> Vec<String> {
        let host = format!("{}.{}.svc", self.service, self.namespace);
        let mut names = vec![host.clone(), format!("{host}.cluster.local")];
        names.extend(self.extra_names.iter().cloned());
        names
    }
}
