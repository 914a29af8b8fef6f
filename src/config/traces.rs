//! The flags for tracing, and the standard environment variables of OpenTelemetry.
//!
//! `platform::telemetry::settings` interprets and validates them.

use std::collections::BTreeMap;

use clap::Args;

/// The variables whose names begin with `OTEL_`.
pub type Variables = BTreeMap<String, String>;

/// Flags for tracing. A flag takes precedence over the OTEL_ variables with the same meaning.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct Traces {
    /// Where traces are sent by OTLP, for example `http://collector:4318`; also read from the standard
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`. Without an endpoint no traces are sent.
    #[arg(long, env = "ZEN_LEAD_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Fraction of the traces that begin here to keep, from 0 to 1.
    #[arg(long, env = "ZEN_LEAD_TRACE_SAMPLE_RATIO", value_name = "RATIO")]
    pub trace_sample_ratio: Option<String>,
}

/// The OpenTelemetry variables in the environment of the process. Empty ones count as absent, as the
/// specification requires.
///
/// # Errors
/// If the value of a variable is not UTF-8; names the variable.
pub fn variables() -> Result<Variables, String> {
    let mut found = Variables::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("OTEL_")) else { continue };
        let value = value.to_str().ok_or_else(|| format!("the value of {name} is not UTF-8"))?;
        if !value.trim().is_empty() {
            found.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    Ok(found)
}
