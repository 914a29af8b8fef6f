//! Which signs together prove that an object is ours, and under which sources it is found.

use super::*;

/// A change to a leader Service.
type Change = fn(&mut Service);

/// A change to a slice.
type SliceChange = fn(&mut EndpointSlice);

#[test]
fn a_leader_service_is_ours_by_its_owner_and_one_more_sign() {
    let unlabel: Change = |s| _ = s.metadata.labels.take();
    let unstamp: Change = |s| _ = s.metadata.annotations.take();
    let disown: Change = |s| _ = s.metadata.owner_references.take();
    let relabel: Change = |s| *s = s.clone().label("zen-lead.io/source-service", "api");
    let helm: Change = |s| *s = s.clone().label("app.kubernetes.io/managed-by", "Helm");
    let select: Change = |s| *s = s.clone().selecting("app", "web");
    let earlier: Change = |s| s.metadata.owner_references.as_mut().unwrap()[0].uid = "u0".into();
    let shared: Change = |s| s.metadata.owner_references.as_mut().unwrap()[0].controller = None;
    let others: Change = |s| s.metadata.owner_references.as_mut().unwrap()[0].kind = "Site".into();
    let cases: [(&[Change], bool); 14] = [
        (&[], true),
        (&[helm], true),
        (&[unlabel], true),
        (&[unstamp], true),
        (&[relabel], true),
        (&[select], true),
        (&[disown], true),
        (&[shared], true),
        (&[disown, helm], true),
        (&[disown, unstamp], false),
        (&[disown, relabel], false),
        (&[disown, select], true),
        (&[earlier], false),
        (&[others], false),
    ];
    for (n, (changes, ours)) in cases.into_iter().enumerate() {
        let mut object = service("l").leading("web", "uid-web");
        for change in changes {
            change(&mut object);
        }
        let mut index = empty();
        index.apply_service(object);
        let (web, api) = (index.snapshot(&key("web")), index.snapshot(&key("api")));
        let leader = web.leaders.iter().chain(&api.leaders).next().expect("it claims to lead");
        assert_eq!(leader.is_ours("web", "uid-web"), ours, "case {n}");
        // Without an owner the label says whose it is.
        let relabelled = leader.owner.is_none() && leader.label.as_deref() == Some("api");
        assert_eq!(leader.is_ours("api", "uid-api"), relabelled, "case {n}");
    }
    // Without label and annotation its owner alone says nothing.
    let mut object = service("l").leading("web", "uid-web");
    unlabel(&mut object);
    unstamp(&mut object);
    let mut index = empty();
    index.apply_service(object);
    assert!(index.snapshot(&key("web")).leaders.is_empty());
}

#[test]
fn a_leader_service_is_found_by_its_label_and_by_its_owner() {
    let mut index = empty();
    let both = service("l").leading("web", "uid-web").label("zen-lead.io/source-service", "api");
    assert_eq!(index.apply_service(both.clone()), keys(&["api", "web"]));
    let leads = |index: &Index, name: &str| index.snapshot(&key(name)).leaders.len();
    assert_eq!((leads(&index, "web"), leads(&index, "api")), (1, 1));
    let back = both.label("zen-lead.io/source-service", "web").version(2);
    assert_eq!(index.apply_service(back), keys(&["api", "web"]));
    assert_eq!((leads(&index, "web"), leads(&index, "api")), (1, 0));
}

#[test]
fn a_copy_without_owner_is_ours_only_under_the_asked_name_or_with_a_slice_of_ours() {
    let copy = |name: &str| {
        let mut copy = service(name).leading("web", "uid-web");
        copy.metadata.owner_references = None;
        copy
    };
    for (name, ours) in [("web-leader", true), ("copy", false)] {
        let mut index = empty();
        index.apply_service(service("web").enabled());
        index.apply_service(copy(name));
        let owned = |index: &Index| {
            let web = index.snapshot(&key("web"));
            web.owns(&web.leaders[0], "uid-web")
        };
        assert_eq!(owned(&index), ours, "{name}");
        let slice = foreign_slice(&format!("{name}-zen-lead-ipv4"), name)
            .label("endpointslice.kubernetes.io/managed-by", "zen-lead")
            .owned_by("Service", name, &format!("uid-{name}"));
        index.apply_slice(slice);
        assert!(owned(&index), "{name}");
    }
}

#[test]
fn a_slice_is_ours_by_its_owner_and_label_or_name() {
    let unlabel: SliceChange = |s| _ = s.metadata.labels.take();
    let disown: SliceChange = |s| _ = s.metadata.owner_references.take();
    let unstamp: SliceChange = |s| _ = s.metadata.annotations.take();
    let rename: SliceChange = |s| s.metadata.name = Some("other".into());
    let other: SliceChange = |s| s.metadata.owner_references.as_mut().unwrap()[0].uid = "u0".into();
    let elsewhere: SliceChange = |s| *s = s.clone().label("kubernetes.io/service-name", "db");
    let unmanage: SliceChange =
        |s| *s = s.clone().label("endpointslice.kubernetes.io/managed-by", "Helm");
    let unsource: SliceChange = |s| *s = s.clone().label("zen-lead.io/source-service", "api");
    let cases: [(&[SliceChange], Option<bool>); 15] = [
        (&[], Some(true)),
        (&[unlabel], Some(true)),
        (&[unstamp], Some(true)),
        (&[rename], Some(true)),
        (&[elsewhere], Some(true)),
        (&[disown], Some(true)),
        (&[unlabel, unstamp], Some(false)),
        (&[unlabel, disown], Some(false)),
        (&[unmanage, disown], Some(true)),
        (&[unsource, disown], Some(true)),
        (&[unmanage, unsource, disown], Some(false)),
        (&[unstamp, disown], Some(false)),
        (&[rename, disown], Some(false)),
        (&[other], Some(false)),
        // Nothing ties it to any Service.
        (&[unlabel, rename], None),
    ];
    let mut leader = empty();
    leader.apply_service(service("l").leading("web", "uid-web"));
    let leader = leader.snapshot(&key("web")).leaders[0].clone();
    for (n, (changes, ours)) in cases.into_iter().enumerate() {
        let mut object = foreign_slice("l-zen-lead-ipv4", "l")
            .label("endpointslice.kubernetes.io/managed-by", "zen-lead")
            .label("zen-lead.io/source-service", "web")
            .annotation("zen-lead.io/decided-at", "services=1,pods=1")
            .owned_by("Service", "l", "uid-l");
        for change in changes {
            change(&mut object);
        }
        let slice = Slice::trim(object);
        assert_eq!(slice.map(|s| s.is_ours(&leader)), ours, "case {n}");
    }
}
