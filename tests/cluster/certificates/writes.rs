//! Annotated writes all through a test, to find out whether one of them fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::try_write;
use crate::support::case::Case;
use crate::support::waiting::{check, until};

/// The number of writes, and the failures.
type Made = Arc<Mutex<(usize, Vec<String>)>>;

/// Annotated writes, one after the other.
pub struct Writes {
    stop: Arc<AtomicBool>,
    made: Made,
    task: JoinHandle<()>,
}

impl Writes {
    pub fn start(t: &Arc<Case>) -> Self {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Made::default());
        let (t, ended, tally) = (t.clone(), stop.clone(), made.clone());
        let task = tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let written = try_write(&t).await;
                {
                    let mut tally = tally.lock();
                    tally.0 += 1;
                    tally.1.extend(written.err());
                }
                sleep(Duration::from_millis(10)).await;
            }
        });
        Self { stop, made, task }
    }

    /// Waits for this many further writes.
    pub async fn more(&self, count: usize) {
        let goal = self.made.lock().0 + count;
        until("writes are made", || async {
            let made = self.made.lock().0;
            check(made >= goal, format!("{made} of {goal}"))
        })
        .await;
    }

    /// The number of writes, and the failures.
    pub async fn finish(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        std::mem::take(&mut *self.made.lock())
    }
}
