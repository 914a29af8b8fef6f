//! Failovers right after a replica died: how long the other one, which has watched all the time, needs for
//! the first of them.

use std::time::Duration;

use tokio::time::timeout;

use super::fill::{Fill, Led};
use super::measure::{Sample, ms};
use super::raw::{OURS, SliceWatch, write_ready};
use crate::installed::replicas;
use crate::support::case::Case;

/// Leaders lost one after the other, each of another Service.
const LOST: usize = 20;

/// Failovers with two replicas, and the first ones after `kill -9` of one: ms from the answer to the
/// pod's status until the slice was seen.
pub async fn first_failovers(t: &Case, fill: &Fill) -> [Sample; 2] {
    let mut leaders = fill.until_led().await.into_iter();
    let mut some = || leaders.by_ref().take(LOST).collect::<Vec<_>>();
    let both = lose(t, some()).await;
    replicas(&t.world).await[0].signal("KILL");
    let alone = lose(t, some()).await;
    t.world.product.until_running().await;
    [both, alone]
}

async fn lose(t: &Case, leaders: Vec<(Led, String)>) -> Sample {
    let client = t.admin();
    let mut slices = SliceWatch::start(&client, OURS).await;
    let mut times = Vec::new();
    for ((namespace, service), pod) in leaders {
        let (_, written) = write_ready(&client, &namespace, &pod, false).await;
        let switched = async {
            loop {
                let seen = slices.next().await;
                let about_it = seen.namespace == namespace && seen.service == service;
                if about_it && seen.ready.len() == 1 && seen.ready[0] != pod {
                    return seen.at;
                }
            }
        };
        let at = timeout(Duration::from_secs(20), switched).await.expect("a switch within 20 s");
        times.push(ms(at.saturating_duration_since(written)));
        write_ready(&client, &namespace, &pod, true).await;
    }
    Sample::of(times)
}
