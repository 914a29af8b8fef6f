//! Which clumsy move comes next, by the dice.

use zen_lead_core::keys::{kubernetes, status};

use super::{Cascade, Clumsy, On, Owner, Squat};
use zen_lead_core::fixtures::api::refuse::{Refuses, Write};
use zen_lead_core::fixtures::dice::Dice;

/// A clumsy move by the dice.
pub fn clumsy(dice: &mut Dice) -> Clumsy {
    let ours = dice.of(&[On::Leader, On::Lock, On::Lock, On::Follower]);
    let slice = dice.of(&[On::Lock, On::Lock, On::Follower]);
    let any = dice.of(&[On::Source, On::Leader]);
    let family = dice.of(&["ipv4", "ipv4", "ipv6"]);
    match dice.below(100) {
        0..14 => {
            let (key, right) = dice.of(&[
                (kubernetes::MANAGED_BY, "zen-lead"),
                (status::SOURCE_SERVICE, "web"),
                (kubernetes::SERVICE_NAME, "web-leader"),
                (kubernetes::SLICE_MANAGED_BY, "zen-lead"),
                (kubernetes::SERVICE_PROXY_NAME, ""),
            ]);
            Clumsy::Label(ours, key, dice.of(&["", "Helm", right]))
        }
        14..16 => Clumsy::Label(any, kubernetes::MANAGED_BY, "Helm"),
        16..26 => {
            let key = dice.of(&[
                status::LEADER_EPOCH,
                status::LEADER_POD_UID,
                status::DECIDED_AT,
                status::WRITE_ID,
                status::DECISION_VERSION,
                status::LEADER_POD_NAME,
                status::ASKED,
            ]);
            Clumsy::Annotate(ours, key, dice.of(&["", "", "clumsy", "1"]))
        }
        26..36 => {
            let owner = dice.of(&[
                Owner::None,
                Owner::None,
                Owner::Past,
                Owner::Stranger,
                Owner::Plain,
                Owner::Right,
            ]);
            Clumsy::Own(ours, owner)
        }
        36..39 => Clumsy::ForeignCondition(any),
        39..42 => {
            let gone = dice.one_in(2);
            Clumsy::OurCondition(any, gone)
        }
        42..47 => {
            let there = !dice.one_in(3);
            Clumsy::Finalizer(ours, there)
        }
        47..53 => {
            let cascade = dice.of(&[
                Cascade::Background,
                Cascade::Orphan,
                Cascade::Orphan,
                Cascade::Foreground,
            ]);
            Clumsy::Delete(dice.of(&[On::Leader, On::Leader, On::Lock, On::Source]), cascade)
        }
        53..59 => {
            let back = u8::try_from(dice.below(8)).unwrap_or(0);
            let with_owner = dice.one_in(2);
            Clumsy::Restore(dice.of(&[On::Leader, slice]), back, with_owner)
        }
        59..66 => {
            let squat = dice.of(&[
                Squat::Bare,
                Squat::Bare,
                Squat::Labelled,
                Squat::LookAlike,
                Squat::Service,
                Squat::ServiceLookAlike,
            ]);
            Clumsy::Squat(squat, family)
        }
        66..70 => Clumsy::Vacate,
        70..78 => {
            let write = dice.of(&[
                Write::CreateService,
                Write::PatchService,
                Write::CreateSlice,
                Write::ReplaceSlice,
                Write::ReplaceSlice,
                Write::Status,
            ]);
            let refuses = dice.of(&[
                Refuses::Conflict,
                Refuses::BadRequest,
                Refuses::TooLarge,
                Refuses::Failed,
                Refuses::Undoes,
            ]);
            Clumsy::Webhook(write, refuses)
        }
        78..85 => Clumsy::WebhooksOff,
        85..86 => Clumsy::Terminating,
        86..93 => {
            let to =
                dice.of(&["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer", "ExternalName"]);
            Clumsy::Convert(to, u8::try_from(dice.below(4)).unwrap_or(0))
        }
        _ => {
            let on = dice.of(&[
                On::Source,
                On::Leader,
                On::Lock,
                On::Follower,
                On::Pod("a"),
                On::Pod("b"),
            ]);
            let is = dice.one_in(2);
            Clumsy::Unreadable(on, is)
        }
    }
}
