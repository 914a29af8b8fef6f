//! kubectl as a user runs it: the tests check its output.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::case::Case;

/// The result of kubectl.
#[derive(Clone, Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// The user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    Alice,
    Admin,
}

impl Case {
    /// Runs kubectl in the test's namespace, with `input` on its standard input.
    pub async fn kubectl(&self, who: As, args: &[&str], input: Option<&Value>) -> Said {
        let cluster = &self.world.cluster;
        let mut command = Command::new(&cluster.kubectl);
        let config = match who {
            As::Alice => &cluster.kubeconfig_user,
            As::Admin => &cluster.kubeconfig,
        };
        command.arg("--kubeconfig").arg(config).args(["--namespace", &self.ns]).args(args);
        // Its discovery cache must not be shared: parallel calls would race for it.
        command.arg("--cache-dir").arg(self.world.dir.join("kubectl-cache"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.map(Value::to_string).unwrap_or_default();
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            Said {
                code: output.status.code().unwrap_or(-1),
                out: String::from_utf8(output.stdout).unwrap(),
                err: String::from_utf8(output.stderr).unwrap(),
            }
        })
        .await
        .unwrap()
    }
}
