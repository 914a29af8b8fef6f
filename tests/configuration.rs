//! docs/configuration.md and the program: every flag with its variable, default and meaning, both ways.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test binary")]

use std::collections::BTreeSet;

use clap::{Arg, CommandFactory, Parser};
use zen_lead::config::certificates::Certificates;
use zen_lead::config::{Cli, Command, Serve};
use zen_lead::platform::server::ServerLimits;

/// The rows of the tables, below each heading that names a command.
fn documented() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut command = String::new();
    let mut rows = BTreeSet::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut command);
        } else if line.starts_with("| `-") {
            assert!(rows.insert(format!("{command}: {line}")), "twice: {line}");
        }
    }
    rows
}

fn row(arg: &Arg) -> String {
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}` ") };
    let long = arg.get_long().unwrap();
    let short = arg.get_short().map(|c| format!("`-{c}`, ")).unwrap_or_default();
    let variable = arg.get_env().and_then(|v| v.to_str()).unwrap_or_default();
    let default: Vec<&str> =
        arg.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
    let help = arg.get_help().unwrap().to_string();
    format!("| {short}`--{long}` | {}| {}| {help} |", code(variable), code(&default.join(",")))
}

fn flags(command: &clap::Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| arg.get_long().is_some_and(|long| long != "help" && long != "version"))
}

#[test]
fn every_flag_is_documented_and_nothing_else_is() {
    let mut program = BTreeSet::new();
    for command in Cli::command().get_subcommands() {
        let name = format!("zen-lead {}", command.get_name());
        program.extend(flags(command).map(|arg| format!("{name}: {}", row(arg))));
    }
    let documented = documented();
    let missing: Vec<_> = program.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&program).collect();
    assert!(missing.is_empty(), "not documented like this:\n{missing:#?}");
    assert!(unknown.is_empty(), "not in the program:\n{unknown:#?}");
}

#[test]
fn every_flag_of_serve_has_a_variable() {
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").unwrap();
    let without: Vec<_> = flags(serve).filter(|arg| arg.get_env().is_none()).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn values_that_cannot_be_are_refused_with_what_is_allowed() {
    for (flag, words) in [
        ("--max-pods-per-service=-1", "must be a whole number from 0 to"),
        ("--max-services-per-namespace=many", "must be a whole number from 0 to"),
        ("--max-idle-namespaces=1.5", "must be a whole number from 0 to"),
        ("--max-namespace-watches=", "must be a whole number from 0 to"),
        ("--max-connections-per-address=-1", "must be a whole number from 0 to"),
        ("--webhook-client-names=api", "--webhook-client-ca-file"),
        ("--workers=0", "must be a whole number from 1"),
        ("--cleanup-interval=10ms", "must be at least 100ms"),
        ("--namespace-idle-ttl=-1s", "must not be negative"),
        ("--namespace-idle-ttl=10", "missing unit"),
        ("--ca-lifetime=1y", "unknown unit"),
        ("--leaf-lifetime=10s", "must be at least 15s"),
    ] {
        let refused = Cli::try_parse_from(["zen-lead", "serve", flag]).unwrap_err().to_string();
        assert!(refused.contains(words), "{flag}: {refused}");
        assert!(refused.contains(flag.split('=').next().unwrap()), "{refused}");
    }
    for flag in ["--max-pods-per-service=0", "--namespace-idle-ttl=0s", "--workers=1"] {
        assert!(Cli::try_parse_from(["zen-lead", "serve", flag]).is_ok(), "{flag}");
    }
}

#[test]
fn the_bound_for_one_address_is_that_of_the_server() {
    assert_eq!(serve(&[]).callers.max_connections_per_address, ServerLimits::PER_ADDRESS);
}

fn serve(flags: &[&str]) -> Serve {
    let all = ["zen-lead", "serve"].iter().chain(flags);
    match Cli::try_parse_from(all).unwrap().command {
        Command::Serve(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn waits_that_a_ca_would_not_outlive_are_refused_with_the_shortest_life() {
    let given = |flags: &[&str]| serve(flags).certificates;
    assert_eq!(given(&[]), Certificates::default());
    let validated = |flags: &[&str]| given(flags).validate();
    assert_eq!(validated(&[]), Ok(()));
    assert_eq!(validated(&["--ca-lifetime=66m"]), Ok(()));
    let refused = validated(&["--ca-lifetime=65m"]).unwrap_err();
    assert!(refused.contains("it must be at least 3960s, six times their sum"), "{refused}");
    assert!(serve(&["--ca-lifetime=65m"]).validate().is_err());
}

#[test]
fn zen_leads_own_writes_are_those_of_its_service_account() {
    let own = |flags: &[&str]| serve(flags).own_username();
    assert_eq!(own(&[]), "system:serviceaccount:zen-lead-system:zen-lead");
    let other = ["--namespace=routing", "--service-account=leaders"];
    assert_eq!(own(&other), "system:serviceaccount:routing:leaders");
    assert_eq!(own(&["--namespace=routing", "--username=alice"]), "alice");
}
