//! The subcommands that end by themselves, as a user runs them.

use std::path::Path;
use std::process::{Command, Stdio};

/// What a subcommand said.
#[derive(Clone, Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs zen-lead with this kubeconfig and these variables, and no other ones.
pub async fn zen_lead(args: &[&str], kubeconfig: &Path, variables: &[(&str, &str)]) -> Said {
    let binary = std::env::var_os("ZEN_LEAD_BINARY");
    let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_zen-lead").into());
    let mut command = Command::new(binary);
    command.args(args).env_clear().envs(variables.iter().copied()).env("KUBECONFIG", kubeconfig);
    command.envs(std::env::vars().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
