//! The protecting policies of deploy/, for the walks that ask for them.

use std::time::Duration;

use tokio::sync::OnceCell;

use crate::support::case::Case;
use crate::support::policies;

const LABEL: &str = "zen-lead-tests/protected";

static MADE: OnceCell<()> = OnceCell::const_new();

/// Puts the policies in force in the namespace of a test.
pub async fn protect(t: &Case) {
    MADE.get_or_init(|| async {
        policies::install(&t.world, "deploy/manifests/70-protection.yaml", LABEL).await;
        // An API server compiles and notices them a moment later.
        tokio::time::sleep(Duration::from_secs(2)).await;
    })
    .await;
    policies::hold_in(t, LABEL).await;
}
