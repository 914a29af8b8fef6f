//! What zen-lead decides: which pod leads, what has to be written next, whether a change is admitted.
//!
//! Values and time in, values out: no await, no client, no clock, no metrics library. Nothing here
//! knows who calls it.
//!
//! ```text
//! objects -> decode -> index -> snapshot -> decide -> the next step
//! AdmissionReview -> admission (over settings and an index view) -> the answer
//! ```

#[cfg(any(test, feature = "fixtures"))]
#[allow(clippy::missing_errors_doc, clippy::return_self_not_must_use, reason = "for tests")]
pub mod fixtures;

pub mod admission;
pub mod decide;
pub mod decode;
pub mod index;
pub mod keys;
pub mod names;
pub mod ranking;
pub mod reason;
pub mod report;
pub mod settings;
pub mod shrink;
pub mod version;

/// Gives enums the text of each variant, and after `all` the list of the variants too. strum derives both.
#[macro_export]
macro_rules! texts {
    ($($name:ident),+) => {$(
        impl $name {
            /// Its text: a metric label, or what is written on objects and shown.
            pub fn as_str(self) -> &'static str {
                self.into()
            }
        }
    )+};
    (all $($name:ident),+) => {
        $crate::texts!($($name),+);
        $(impl $name {
            /// All of them.
            pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;
        })+
    };
}
