//! Clumsy walks written by hand: one for each mistake that was seen on a real cluster.

use zen_lead_core::keys::{kubernetes, status};

use crate::clumsy::{Cascade, Clumsy, On, Owner, Squat};
use crate::replica::Without;
use crate::walk::{Move, Profile, Walk};
use crate::world::{PodMove, World};
use zen_lead_core::fixtures::api::refuse::{Refuses, Write};

/// Two replicas of a source that was served, unless `served` is false; pods a and b are ready.
fn walk(served: bool, one_by_one: bool, moves: &[Clumsy], without: Without) -> Walk {
    let ready = |name| Move::World(World::Pod(name, PodMove::Ready(true)));
    let lost = |name| Move::World(World::Pod(name, PodMove::Ready(false)));
    let act = || [Move::Run(0, 12), Move::Run(1, 12)];
    // The younger pod leads where the source was served: another choice would show.
    let mut all = vec![lost("a"), lost("c"), ready("b")];
    all.extend(act().into_iter().filter(|_| served));
    all.extend([ready("a"), ready("c")]);
    all.extend(act().into_iter().filter(|_| served));
    for what in moves {
        all.push(Move::World(World::Clumsy(*what)));
        all.extend(act().into_iter().filter(|_| one_by_one));
    }
    all.extend(act());
    // The leader is lost, and comes back.
    for name in ["a", "b", "c"] {
        all.push(lost(name));
        all.extend(act());
        all.push(ready(name));
        all.extend(act());
    }
    // One pod is gone for good, and something refuses to move the traffic away.
    all.push(Move::World(World::Pod("a", PodMove::ComeOrGo)));
    all.extend(act());
    Walk {
        seed: 1,
        profile: Profile::Clumsy,
        without,
        dual: false,
        replicas: 2,
        moves: all,
        served,
        lonely: false,
        ranks: false,
        downgrade: false,
        harm_only: false,
    }
}

/// It holds with the moves one by one, and with all of them at once.
fn holds(served: bool, moves: &[Clumsy]) {
    for one_by_one in [true, false] {
        let walk = walk(served, one_by_one, moves, Without::Nothing);
        if let Err(bad) = walk.run() {
            let (property, found, trace) = (bad.property, bad.found, walk.trace());
            panic!("{moves:?}: {property} does not hold: {found}\n{trace}");
        }
    }
}

#[test]
fn a_changed_label_costs_a_leader_nothing() {
    for on in [On::Leader, On::Lock] {
        for key in [
            kubernetes::MANAGED_BY,
            status::SOURCE_SERVICE,
            kubernetes::SERVICE_NAME,
            kubernetes::SLICE_MANAGED_BY,
            kubernetes::SERVICE_PROXY_NAME,
        ] {
            for value in ["", "Helm"] {
                holds(true, &[Clumsy::Label(on, key, value)]);
            }
        }
    }
}

#[test]
fn a_lost_owner_costs_a_leader_nothing() {
    for on in [On::Leader, On::Lock] {
        for owner in [Owner::None, Owner::Plain] {
            holds(true, &[Clumsy::Own(on, owner)]);
        }
    }
}

#[test]
fn a_changed_annotation_costs_a_leader_nothing() {
    for on in [On::Leader, On::Lock] {
        for key in [
            status::LEADER_EPOCH,
            status::LEADER_POD_UID,
            status::LEADER_POD_NAME,
            status::DECIDED_AT,
            status::WRITE_ID,
            status::DECISION_VERSION,
            status::ASKED,
        ] {
            for value in ["", "clumsy"] {
                holds(true, &[Clumsy::Annotate(on, key, value)]);
            }
        }
    }
}

#[test]
fn a_changed_condition_costs_a_leader_nothing() {
    for on in [On::Source, On::Leader] {
        holds(true, &[Clumsy::ForeignCondition(on)]);
        holds(true, &[Clumsy::OurCondition(on, true)]);
        holds(true, &[Clumsy::OurCondition(on, false)]);
    }
}

#[test]
fn slices_without_an_owner_are_taken_back() {
    holds(true, &[Clumsy::Delete(On::Leader, Cascade::Orphan)]);
    holds(true, &[Clumsy::Delete(On::Leader, Cascade::Background)]);
    holds(true, &[Clumsy::Delete(On::Leader, Cascade::Foreground)]);
}

#[test]
fn an_orphaning_deletion_that_cannot_end_costs_few_calls() {
    for on in [On::Leader, On::Source] {
        for write in [Write::PatchService, Write::ReplaceSlice] {
            let refuses = Clumsy::Webhook(write, Refuses::Conflict);
            holds(true, &[refuses, Clumsy::Delete(on, Cascade::Orphan)]);
        }
    }
}

#[test]
fn a_restored_copy_is_served_or_left_alone() {
    for on in [On::Leader, On::Lock] {
        for back in [0, 2] {
            for with_owner in [true, false] {
                holds(true, &[Clumsy::Restore(on, back, with_owner)]);
            }
        }
    }
}

#[test]
fn a_taken_name_is_reported_and_costs_no_calls() {
    for squat in
        [Squat::Bare, Squat::Labelled, Squat::LookAlike, Squat::Service, Squat::ServiceLookAlike]
    {
        holds(false, &[Clumsy::Squat(squat, "ipv4")]);
        holds(true, &[Clumsy::Delete(On::Lock, Cascade::Background), Clumsy::Squat(squat, "ipv4")]);
    }
}

#[test]
fn a_refused_write_is_reported_and_costs_few_calls() {
    let all = [
        Refuses::Conflict,
        Refuses::BadRequest,
        Refuses::TooLarge,
        Refuses::Failed,
        Refuses::Undoes,
    ];
    for refuses in all {
        for write in [
            Write::CreateService,
            Write::PatchService,
            Write::CreateSlice,
            Write::ReplaceSlice,
            Write::Status,
        ] {
            for served in [true, false] {
                holds(served, &[Clumsy::Webhook(write, refuses)]);
                let edited = Clumsy::Label(On::Leader, kubernetes::MANAGED_BY, "Helm");
                holds(served, &[Clumsy::Webhook(write, refuses), edited]);
            }
        }
    }
}

#[test]
fn what_hangs_in_its_deletion_is_reported_as_it_is() {
    for on in [On::Leader, On::Lock] {
        let delete = Clumsy::Delete(on, Cascade::Background);
        holds(true, &[Clumsy::Finalizer(on, true), delete]);
    }
    let gone = Clumsy::Delete(On::Source, Cascade::Background);
    holds(true, &[Clumsy::Finalizer(On::Leader, true), gone]);
}

#[test]
fn a_namespace_that_ends_costs_few_calls() {
    holds(false, &[Clumsy::Terminating]);
    holds(true, &[Clumsy::Terminating, Clumsy::Delete(On::Leader, Cascade::Background)]);
}

#[test]
fn a_change_of_type_reaches_the_leader_service() {
    let types = [("ClusterIP", 0), ("NodePort", 0), ("LoadBalancer", 1), ("LoadBalancer", 2)];
    for (from, n) in types {
        for (to, m) in types {
            let between = Clumsy::Convert("ClusterIP", 0);
            holds(true, &[Clumsy::Convert(from, n), Clumsy::Convert(to, m)]);
            holds(true, &[Clumsy::Convert(from, n), between, Clumsy::Convert(to, m)]);
            holds(false, &[Clumsy::Convert(from, n)]);
        }
    }
    holds(true, &[Clumsy::Convert("ExternalName", 0)]);
}

#[test]
fn what_cannot_be_read_costs_a_leader_nothing() {
    for on in [On::Source, On::Leader, On::Lock, On::Pod("a"), On::Pod("b")] {
        holds(true, &[Clumsy::Unreadable(on, true)]);
        holds(false, &[Clumsy::Unreadable(on, true)]);
    }
}
