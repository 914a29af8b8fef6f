//! Admission: the pure verdict on a change, the patch, and the AdmissionReview around both.
//!
//! `verdict` and `patch` judge and add; `review` reads and writes the wire format. No sockets, no
//! index and no clock here: the view on other Services comes in as [`Neighbours`].

pub mod patch;
mod peers;
pub mod review;
pub mod verdict;

pub use review::{Judged, Outcome, Path, ReviewError, Verb, judge};
pub use verdict::{Change, Neighbours, Question, Verdict, verdict};
