//! The map of the house, enforced: which room may use which, that none uses one above it, and that no two
//! use each other.
//!
//! A room is a module of the core, of `control`, `webhook` or `platform`, or one of the others in src/. The
//! map in words is in CONTRIBUTING.md. Tests of rooms may use what they like.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, is_test, rust_files};

/// From below. A room may use rooms of its own floor and of those below.
const FLOORS: [&[&str]; 6] =
    [&["core"], &["config", "shared"], &["platform"], &["control", "webhook"], &["cli"], &["app"]];
/// Floors with rooms that may not use the others beside them.
const APART: [(&str, &str); 3] =
    [("control", "webhook"), ("webhook", "control"), ("config", "shared")];

/// Rooms, and the rooms that each uses with a file that does.
type Uses = BTreeMap<String, BTreeMap<String, String>>;

/// The room of a module path; `None` for the root of a crate.
fn room(in_core: bool, path: &[&str]) -> Option<String> {
    let first = *path.first()?;
    Some(match (in_core, path.get(1)) {
        (true, _) => format!("core/{first}"),
        (false, Some(second)) if ["control", "webhook", "platform"].contains(&first) => {
            format!("{first}/{second}")
        }
        (false, _) => first.to_owned(),
    })
}

/// The paths that begin with `crate::` or `zen_lead_core::`, without what is in braces.
fn paths<'a>(code: &'a str, root: &str) -> Vec<Vec<&'a str>> {
    let starts = code.match_indices(root).filter(|(at, _)| {
        let before = code[..*at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    });
    let path = |at: usize| -> Vec<&str> {
        let rest = &code[at + root.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        rest[..end.unwrap_or(rest.len())].split("::").filter(|s| !s.is_empty()).collect()
    };
    starts.map(|(at, _)| path(at)).collect()
}

fn uses() -> Uses {
    let mut map = Uses::new();
    for (folder, in_core) in [("core/src", true), ("src", false)] {
        for path in rust_files(folder) {
            let shown = super::shown(&path);
            let name = shown.strip_prefix(folder).unwrap().trim_start_matches('/').to_owned();
            let parts: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
            let left_out = is_test(&path) || name.ends_with("/fake.rs");
            if left_out || ["lib", "main"].contains(&parts[0]) {
                continue;
            }
            let Some(own) = room(in_core, &parts) else { continue };
            let code = code(&path);
            for list in ["crate::{", "crate::control::{", "crate::platform::{"] {
                let top = ["app", "cli"].contains(&wing(&own));
                assert!(
                    top || !code.contains(list),
                    "{name}: name the rooms in a `use` each: {list}"
                );
            }
            let here = paths(&code, "crate::").into_iter().filter_map(|p| room(in_core, &p));
            let inner = paths(&code, "zen_lead_core::").into_iter().filter_map(|p| room(true, &p));
            let used = map.entry(own.clone()).or_default();
            for other in here.chain(inner).filter(|other| *other != own) {
                used.entry(other).or_insert_with(|| format!("{folder}/{name}"));
            }
        }
    }
    map
}

fn wing(room: &str) -> &str {
    room.split('/').next().unwrap()
}

/// Rooms that use one above them, or one that is to be apart.
fn upwards(uses: &Uses) -> Vec<String> {
    let floor = |room: &str| FLOORS.iter().position(|wings| wings.contains(&wing(room)));
    let mut faults = Vec::new();
    for (room, used) in uses {
        let Some(own) = floor(room) else {
            faults.push(format!("{room} has no floor: add it to FLOORS"));
            continue;
        };
        for (other, file) in used {
            let above = floor(other).is_none_or(|floor| floor > own);
            if above || APART.contains(&(wing(room), wing(other))) {
                faults.push(format!("{file}: {room} must not use {other}"));
            }
        }
    }
    faults
}

/// Rooms that use each other, also by way of others: one of each circle with the way round.
fn circles(uses: &Uses) -> Vec<String> {
    let mut found = Vec::new();
    let mut done = BTreeSet::new();
    for start in uses.keys() {
        // The shortest way back, breadth first, among rooms that are in no circle yet.
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut next = vec![start.as_str()];
        while let Some(room) = next.first().copied() {
            next.remove(0);
            for other in uses.get(room).into_iter().flat_map(BTreeMap::keys) {
                if !done.contains(other.as_str()) && !came_from.contains_key(other.as_str()) {
                    came_from.insert(other, room);
                    next.push(other);
                }
            }
        }
        if came_from.contains_key(start.as_str()) {
            let mut way = vec![start.as_str()];
            let mut room = came_from[start.as_str()];
            while room != start {
                way.push(room);
                room = came_from[room];
            }
            way.push(start);
            way.reverse();
            found.push(way.join(" -> "));
        }
        done.insert(start.as_str());
    }
    found
}

#[test]
fn no_room_uses_one_above_it() {
    let faults = upwards(&uses());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_two_rooms_use_each_other() {
    let uses = uses();
    assert!(uses.len() > 40, "only {} rooms were found", uses.len());
    let faults = circles(&uses);
    assert!(faults.is_empty(), "rooms use each other:\n{}", faults.join("\n"));
}

/// The rules themselves find what is wrong.
#[test]
fn a_wrong_map_is_found() {
    let map = |arrows: &[(&str, &str)]| -> Uses {
        let mut map = Uses::new();
        for (from, to) in arrows {
            map.entry((*to).to_owned()).or_default();
            let used = map.entry((*from).to_owned()).or_default();
            used.insert((*to).to_owned(), "file.rs".to_owned());
        }
        map
    };
    let right = map(&[("app", "control/feeds"), ("control/feeds", "core/index")]);
    assert_eq!((upwards(&right), circles(&right)), (Vec::new(), Vec::new()));
    for (from, to) in [
        ("core/decide", "platform/metrics"),
        ("platform/telemetry", "control/watch"),
        ("webhook/verdicts", "control/reconcile"),
        ("cellar", "core/index"),
    ] {
        assert_eq!(upwards(&map(&[(from, to)])).len(), 1, "{from} -> {to}");
    }
    let around =
        map(&[("control/a", "control/b"), ("control/b", "control/c"), ("control/c", "control/a")]);
    assert_eq!(circles(&around), ["control/a -> control/b -> control/c -> control/a"]);
    let text = "use crate::control::{a, b};\nlet x = zen_lead_core::index::Index::new();";
    assert_eq!(paths(text, "crate::"), [vec!["control"]]);
    assert_eq!(paths(text, "zen_lead_core::"), [vec!["index", "Index", "new"]]);
}
