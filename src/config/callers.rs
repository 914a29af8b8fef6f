//! Flags about the callers of the servers: how many connections one may hold, and what it must present.
//!
//! Used in `platform::server`.

use std::path::PathBuf;

use clap::Args;

use super::count;

/// Who may call, and how much.
#[derive(Clone, Debug, Args)]
pub struct Callers {
    /// Open connections from one address, on each of the two ports; above this number, a new one takes the place of another one from that address. 0: no bound but that of the port, 2000.
    #[arg(long, env = "ZEN_LEAD_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 1000, value_parser = count)]
    pub max_connections_per_address: usize,
    /// File with the CAs (PEM) of the API server's client certificate; with it, the webhook refuses callers without such a certificate.
    #[arg(long, env = "ZEN_LEAD_WEBHOOK_CLIENT_CA_FILE")]
    pub webhook_client_ca_file: Option<PathBuf>,
    /// Names of which the client certificate must have one, as common name or DNS name. None: every certificate of the CAs is accepted.
    #[arg(
        long,
        env = "ZEN_LEAD_WEBHOOK_CLIENT_NAMES",
        value_delimiter = ',',
        requires = "webhook_client_ca_file"
    )]
    pub webhook_client_names: Vec<String>,
    /// File with a token; with it, /metrics is only served to callers that send it as bearer token. Probes need none.
    #[arg(long, env = "ZEN_LEAD_METRICS_TOKEN_FILE")]
    pub metrics_token_file: Option<PathBuf>,
}
