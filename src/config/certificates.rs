//! Flags about self-made certificates: how long they live, and the waits of a rotation.
//!
//! What the waits are for is said in `pki::state`; here they are read and judged together.

use std::time::Duration;

use clap::Args;

use super::go;

/// Lives and waits of the self-made certificates.
#[derive(Clone, Debug, Args)]
pub struct Certificates {
    /// Life of the self-made CA; when a third of it is left, a new one is introduced.
    #[arg(long, env = "ZEN_LEAD_CA_LIFETIME", default_value = "8760h", value_parser = life)]
    pub ca_lifetime: Duration,
    /// Life of the self-made certificate of a replica; when a third of it is left, the next one is signed.
    #[arg(long, env = "ZEN_LEAD_LEAF_LIFETIME", default_value = "168h", value_parser = life)]
    pub leaf_lifetime: Duration,
    /// How long a new CA stands in the webhook configurations before it signs: so long API servers may take to notice it.
    #[arg(long, env = "ZEN_LEAD_CA_INTRODUCE_WAIT", default_value = "1m", value_parser = go)]
    pub ca_introduce_wait: Duration,
    /// How long the old CA stays in the webhook configurations once the new one signs: so long replicas may take to notice it.
    #[arg(long, env = "ZEN_LEAD_CA_RETIRE_WAIT", default_value = "10m", value_parser = go)]
    pub ca_retire_wait: Duration,
}

impl Certificates {
    /// Whether a rotation ends in good time before the CA it replaces.
    ///
    /// # Errors
    /// When it does not, with what to change.
    pub fn judge(&self) -> Result<(), String> {
        let shortest = 6 * (self.ca_introduce_wait + self.ca_retire_wait);
        if self.ca_lifetime < shortest {
            return Err(format!(
                "--ca-lifetime is {:?}, but with --ca-introduce-wait {:?} and --ca-retire-wait {:?} it \
                 must be at least {shortest:?}, six times their sum: a rotation begins when a third \
                 is left, and has to end long before the CA does; make it longer or the waits shorter",
                self.ca_lifetime, self.ca_introduce_wait, self.ca_retire_wait
            ));
        }
        Ok(())
    }
}

/// The life of a certificate. Below this a slow pass could miss the end.
fn life(text: &str) -> Result<Duration, String> {
    let shortest = Duration::from_secs(15);
    let life = go(text)?;
    if life < shortest { Err("must be at least 15s".to_owned()) } else { Ok(life) }
}
