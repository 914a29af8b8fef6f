//! The flags of tracing, and the standard variables of OpenTelemetry as they were found.
//!
//! What they mean, and which values are right, is in `telemetry::settings`.

use std::collections::BTreeMap;

use clap::Args;

/// The variables whose names begin with `OTEL_`.
pub type Variables = BTreeMap<String, String>;

/// Flags of tracing; each goes before the OTEL_ variables that say the same.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct Traces {
    /// Where traces are sent by OTLP, as `http://collector:4318`; also read from the standard
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`. Without it there are none.
    #[arg(long, env = "ZEN_LEAD_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Which part of the traces that begin here is kept, from 0 to 1.
    #[arg(long, env = "ZEN_LEAD_TRACE_SAMPLE_RATIO", value_name = "RATIO")]
    pub trace_sample_ratio: Option<String>,
}

/// The variables of OpenTelemetry in the environment of the process; empty ones count as absent,
/// as the specification asks.
///
/// # Errors
/// Names a variable whose value is not UTF-8.
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
