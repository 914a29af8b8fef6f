//! Files that are read again every few seconds: mounted Secrets and ConfigMaps, which change while zen-lead runs.
//!
//! Polls the content instead of watching with inotify: the kubelet swaps the `..data` symlink, after which a
//! watch on the file is dead, and some mounts send no events at all. What is in the files is their readers'.

use std::fmt::Display;
use std::time::Duration;

/// How often files are read.
pub const POLL: Duration = Duration::from_secs(5);

/// What is read from files.
pub trait Reread {
    /// What it is, for the log.
    const WHAT: &'static str;
    /// Why files were not taken.
    type Error: Display + Send;

    /// Reads the files once. Returns a text for the log if something new was taken.
    ///
    /// # Errors
    /// If the files cannot be used. What was read before stays in use.
    fn reread(&mut self) -> impl Future<Output = Result<Option<String>, Self::Error>> + Send;
}

/// Reads every [`POLL`] without end, and logs what was taken, and each failure once per cause.
pub async fn keep_reading<R: Reread>(mut reader: R) {
    let what = R::WHAT;
    let mut last = String::new();
    loop {
        match reader.reread().await {
            Ok(None) => {}
            Ok(Some(loaded)) => {
                last.clear();
                tracing::info!("{loaded}");
            }
            Err(error) => {
                let text = error.to_string();
                if text != last {
                    tracing::error!(
                        "{what} not loaded, what was loaded before stays in use: {text}; checked again every \
                         {POLL:?}"
                    );
                    last = text;
                }
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
