//! Flags about the callers of the servers: how many connections one may hold.
//!
//! Used in `platform::server`.

use clap::Args;

use super::count;

/// How much a caller may hold.
#[derive(Clone, Debug, Args)]
pub struct Callers {
    /// Open connections from one address, on each of the two ports; above this number, a new one takes the place of another one from that address. 0: no bound but that of the port, 2000.
    #[arg(long, env = "ZEN_LEAD_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 1000, value_parser = count)]
    pub max_connections_per_address: usize,
}
