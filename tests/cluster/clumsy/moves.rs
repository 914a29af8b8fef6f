//! The moves of clumsy hands. A move is a value, so that a walk can be printed, replayed and shortened.
//! `draw` chooses moves, `act` does them.

use std::fmt;

use serde_json::Value;

use super::hooks::Hook;
use super::raw::{Cascade, How, Kind, On};

/// The user of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A plain user with the role `edit`.
    Alice,
    /// A controller of the namespace.
    Robot,
    /// An admin in the break-glass group.
    Glass,
}

/// What a restored object keeps of its dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    pub uid: bool,
    pub owners: bool,
    pub status: bool,
}

/// One move.
#[derive(Clone, Debug, PartialEq)]
pub enum Move {
    Patch {
        who: Who,
        on: On,
        sub: &'static str,
        how: How,
        patch: Value,
    },
    Create {
        who: Who,
        kind: Kind,
        object: Value,
    },
    Delete {
        who: Who,
        on: On,
        cascade: Cascade,
    },
    /// `kubectl label svc --all`.
    LabelAll {
        who: Who,
        key: &'static str,
        value: &'static str,
    },
    /// Keeps a copy of the objects.
    Dump,
    /// Deletes what was dumped and creates the copies.
    Restore {
        who: Who,
        on: &'static [On],
        keep: Keep,
    },
    Hook(Hook),
    Unhook,
    Quota {
        resource: &'static str,
        hard: u8,
    },
    Unquota,
    Pod(&'static str, PodMove),
    /// Merge patches of the source in quick succession.
    Flips(Vec<Value>),
    /// This many further enabled Services.
    Crowd(usize),
    /// A replica of zen-lead ends and is started again.
    Restart(usize),
    /// Another client writes the slice at the same time as its leader is lost.
    LoseWhileWritten,
    /// A pause of this many milliseconds.
    Wait(u64),
}

/// What happens to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodMove {
    Ready(bool),
    Vanish,
    Come,
    Relabel(bool),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alice => "alice",
            Self::Robot => "robot",
            Self::Glass => "carol (break glass)",
        })
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.resource(), self.1)
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Patch { who, on, sub, how, patch } => {
                let sub = if sub.is_empty() { String::new() } else { format!(" {sub}") };
                write!(f, "{who}: patch {on}{sub} ({how:?}) {patch}")
            }
            Self::Create { who, kind, object } => {
                write!(f, "{who}: create {} {object}", kind.resource())
            }
            Self::Delete { who, on, cascade } => write!(f, "{who}: delete {on} ({cascade:?})"),
            Self::LabelAll { who, key, value } => {
                write!(f, "{who}: label services --all {key}={value}")
            }
            Self::Dump => f.write_str("dump the objects"),
            Self::Restore { who, on, keep } => {
                write!(f, "{who}: restore {keep:?}")?;
                on.iter().try_for_each(|on| write!(f, " {on}"))
            }
            Self::Hook(hook) => write!(f, "register {hook}"),
            Self::Unhook => f.write_str("remove the webhooks"),
            Self::Quota { resource, hard } => write!(f, "quota: {resource} at most {hard}"),
            Self::Unquota => f.write_str("remove the quotas"),
            Self::Pod(name, what) => write!(f, "pod {name}: {what:?}"),
            Self::Flips(all) => {
                f.write_str("alice: patch services/web quickly:")?;
                all.iter().try_for_each(|patch| write!(f, " {patch}"))
            }
            Self::Crowd(n) => write!(f, "alice: create {n} more enabled Services"),
            Self::Restart(n) => write!(f, "replica {n} of zen-lead is restarted"),
            Self::LoseWhileWritten => f.write_str("the leader is lost while the slice is written"),
            Self::Wait(ms) => write!(f, "wait {ms} ms"),
        }
    }
}
