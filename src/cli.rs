//! The subcommands beside serve.
