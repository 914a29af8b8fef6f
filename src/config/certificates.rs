//! Flags about self-made certificates: their lifetimes, and the waits of a rotation.
//!
//! They are read and validated together here, and used in `platform::pki::state`.

use std::time::Duration;

use clap::Args;

use super::go;

/// Lifetimes and waits of the self-made certificates.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Certificates {
    /// Lifetime of the self-made CA; when a third of it is left, a new CA is introduced.
    #[arg(long, env = "ZEN_LEAD_CA_LIFETIME", default_value = "8760h", value_parser = lifetime)]
    pub ca_lifetime: Duration,
    /// Lifetime of a replica's self-made certificate; when a third of it is left, the next one is signed.
    #[arg(long, env = "ZEN_LEAD_LEAF_LIFETIME", default_value = "168h", value_parser = lifetime)]
    pub leaf_lifetime: Duration,
    // The progress of the watches through which API servers read the configurations is not visible.
    /// How long a new CA is published in the webhook configurations before it signs, so that every API server has loaded it.
    #[arg(long, env = "ZEN_LEAD_CA_INTRODUCE_WAIT", default_value = "1m", value_parser = go)]
    pub ca_introduce_wait: Duration,
    /// How long the old CA stays in the webhook configurations after the new one signs, so that every replica has switched.
    #[arg(long, env = "ZEN_LEAD_CA_RETIRE_WAIT", default_value = "10m", value_parser = go)]
    pub ca_retire_wait: Duration,
}

impl Default for Certificates {
    /// What the flags are by default.
    fn default() -> Self {
        Self {
            ca_lifetime: Duration::from_hours(8760),
            leaf_lifetime: Duration::from_hours(168),
            ca_introduce_wait: Duration::from_mins(1),
            ca_retire_wait: Duration::from_mins(10),
        }
    }
}

impl Certificates {
    /// Checks that a rotation ends well before the CA that it replaces.
    ///
    /// # Errors
    /// If it does not, with what to change.
    pub fn validate(&self) -> Result<(), String> {
        let shortest = 6 * (self.ca_introduce_wait + self.ca_retire_wait);
        if self.ca_lifetime < shortest {
            return Err(format!(
                "--ca-lifetime is {:?}, but with --ca-introduce-wait {:?} and --ca-retire-wait {:?} it \
                 must be at least {shortest:?}, six times their sum: a rotation begins when a third \
                 is left, and has to end long before the CA does; make the lifetime longer or the waits shorter",
                self.ca_lifetime, self.ca_introduce_wait, self.ca_retire_wait
            ));
        }
        Ok(())
    }
}

/// The lifetime of a certificate. With a shorter one, a slow pass could miss its end.
fn lifetime(text: &str) -> Result<Duration, String> {
    let shortest = Duration::from_secs(15);
    let lifetime = go(text)?;
    if lifetime < shortest { Err("must be at least 15s".to_owned()) } else { Ok(lifetime) }
}
