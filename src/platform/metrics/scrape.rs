//! One scrape: the text of all metrics, written in small parts, so that neither the whole text is held nor
//! a lock or a thread for long.
//!
//! How the parts reach a client is in `server::admin`.

use jiff::Timestamp;

use super::series::SeriesFamily;
use super::services::Services;
use super::text::head;
use zen_lead_core::names::ServiceKey;

/// What one part takes: bytes of text, and Services that are looked at. Those without a sample of the family
/// give no text. While a part is written, everything that is recorded about a Service waits.
const PART: (usize, usize) = (16 * 1024, 256);

/// A scrape that is under way.
///
/// A Service that comes or goes meanwhile has some of its series in it. Each family is one block, and no
/// series is there twice.
pub struct Scrape {
    services: Services,
    /// The metrics that are not about a Service; the first part.
    process: Option<String>,
    now: Timestamp,
    /// Families that are complete.
    complete: usize,
    /// Whether the head of the present family is written.
    headed: bool,
    /// The last Service of which the present family is written.
    after: Option<ServiceKey>,
}

impl Scrape {
    /// The most bytes of a part about Services, but for the samples of one Service.
    pub const PART_BYTES: usize = PART.0;

    pub(super) fn new(services: Services, process: String) -> Self {
        let now = services.now();
        Self { services, process: Some(process), now, complete: 0, headed: false, after: None }
    }

    /// Appends the next part, which may be empty. Returns false if it was the last one.
    pub fn write_part(&mut self, out: &mut String) -> bool {
        if let Some(process) = self.process.take() {
            out.push_str(&process);
            return true;
        }
        let Some(family) = SeriesFamily::ALL.get(self.complete) else { return false };
        let start = out.len();
        self.after = self.services.write(*family, self.after.as_ref(), self.now, PART, out);
        // A family without samples has no head.
        if !self.headed && out.len() > start {
            out.insert_str(start, &head(&family.definition()));
            self.headed = true;
        }
        if self.after.is_none() {
            self.complete += 1;
            self.headed = false;
        }
        self.complete < SeriesFamily::ALL.len()
    }
}
