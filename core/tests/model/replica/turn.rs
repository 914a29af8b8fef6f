//! A replica's turn: decide, read, write, one API call at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use zen_lead_core::decide::slices::{SliceStep, SliceWrite};
use zen_lead_core::decide::{self, Action, Context, Decision, Step, Trust, Verified};
use zen_lead_core::index::pod::{Family, Pod};
use zen_lead_core::index::slice::Slice;
use zen_lead_core::index::{Index, Limits, Snapshot};
use zen_lead_core::keys::status;
use zen_lead_core::names::{NameRule, ServiceKey};
use zen_lead_core::ranking::{self, TAKEOVER};
use zen_lead_core::version::{Marks, Rv};

use super::{
    KINDS, Kind, Outcome, Pending, Reading, ReadingByName, Replica, Settling, Without, take,
};
use crate::checks::{self, Bad, Before, Ledger};
use crate::digest::Part;
use crate::facts;
use crate::fresh::fresh;
use zen_lead_core::fixtures::api::{Answer, Server, Stored};
use zen_lead_core::fixtures::{NAMESPACE, at};

impl Replica {
    pub(super) fn now(&self, server: &Server) -> Timestamp {
        server.now + SignedDuration::from_millis(self.skew)
    }

    /// Does what comes next: one call, or one decision.
    pub fn act(
        &mut self,
        server: &mut Server,
        outcome: Outcome,
        ledger: &mut Ledger,
    ) -> Result<(), Bad> {
        if self.reading.is_some() {
            self.calls.push(server.now);
            self.read_on(server, outcome);
            return Ok(());
        }
        if self.reading_by_name.is_some() {
            self.calls.push(server.now);
            self.read_by_name(server, outcome);
            return Ok(());
        }
        if let Some(settling) = self.settling.take() {
            self.calls.push(server.now);
            self.settle(server, outcome, &settling);
            return Ok(());
        }
        if let Some(answer) = self.answered.take() {
            if let Some(key) = self.current.clone() {
                self.absorb(&key, &answer);
            }
            return Ok(());
        }
        if let Some(pending) = self.pending.take() {
            self.calls.push(server.now);
            return self.write(server, outcome, pending, ledger);
        }
        let now = self.now(server);
        let due: Vec<_> =
            self.timers.iter().filter(|(_, at)| **at <= now).map(|(k, _)| k.clone()).collect();
        for key in due {
            self.timers.remove(&key);
            self.queue.insert(key);
        }
        self.wake_held(now);
        let next = self.current.clone().or_else(|| self.queue.pop_first());
        let Some(key) = next.or_else(|| self.bare.clone()) else {
            return Ok(());
        };
        if self.current.is_none() {
            self.current = Some(key.clone());
            (self.turns, self.since) = (0, server.version);
        }
        self.turns += 1;
        if self.turns > 24 {
            self.again(&key);
            return Ok(());
        }
        let believes = self.without == Without::FreshOrRead;
        let unsure = self.read.is_none() && self.trust() != Trust::Live && !believes;
        let (view, reach, decision) = self.decide(&key, now);
        if let Some(at) = decision.again_at {
            self.timers.insert(key.clone(), at.max(now + SignedDuration::from_millis(1)));
        }
        self.newer_gone =
            self.newer_gone.or(Some(now)).filter(|_| decision.may_take_over && self.takes_over());
        if let Some(since) = self.newer_gone.filter(|since| now < *since + TAKEOVER) {
            self.timer_at(&key, since + TAKEOVER);
        }
        if let Action::Do(step) = &decision.action
            && let Some(at) = self.waits_for_rank(&key, step, now)
        {
            self.rest();
            self.timer_at(&key, at);
            return Ok(());
        }
        match decision.action {
            Action::Nothing | Action::Wait => {
                self.wish = None;
                self.rest();
            }
            Action::Read => {
                self.since = server.version;
                self.reading = Some(Reading::default());
            }
            Action::ReadInputs(inputs) => {
                let names = |kind, names: &BTreeSet<String>| {
                    names.iter().map(|name| (kind, name.clone())).collect::<Vec<_>>()
                };
                let mut left = names(Kind::Pods, &inputs.pods);
                left.extend(names(Kind::Slices, &inputs.slices));
                left.extend(names(Kind::Services, &inputs.services));
                left.retain(|(kind, _)| self.without != Without::ByName(*kind));
                let step = decision.read_for.expect("it is read for a step");
                self.since = server.version;
                self.reading_by_name = Some(ReadingByName { left, inputs, step });
            }
            Action::Do(mut step) => {
                self.acting = true;
                if let Step::Slice(next) = &mut step {
                    self.sign(next);
                }
                let other_history = self.read.is_none() && self.watches.iter().any(|w| w.broken);
                let held_back = self.holds_slices(&key, &view, now);
                self.pending = Some(Pending {
                    step,
                    view,
                    reach,
                    now,
                    since: self.since,
                    source: key,
                    unsure,
                    other_history,
                    held_back,
                });
            }
        }
        Ok(())
    }

    fn takes_over(&self) -> bool {
        self.without != Without::Takeover
    }

    fn timer_at(&mut self, key: &ServiceKey, at: Timestamp) {
        let timer = self.timers.entry(key.clone()).or_insert(at);
        *timer = at.min(*timer);
    }

    /// When it may take a step, if others go first.
    fn waits_for_rank(
        &mut self,
        key: &ServiceKey,
        step: &Step,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let rank = ranking::rank(&self.name, &self.members, key);
        let goes_on = self.acting && !step.kind().is_copy();
        if rank == 0 || step.urgent() || goes_on {
            return None;
        }
        let wish = step.wish();
        let since = self.wish.take().filter(|(same, _)| *same == wish).map_or(now, |(_, at)| at);
        self.wish = Some((wish, since));
        let at = since + SignedDuration::try_from(step.stagger(rank)).expect("it is short");
        (at > now).then_some(at)
    }

    /// Puts an id on a write, by which it is found again when the answer is lost: of one replica's
    /// writes over one version at most one is carried out.
    fn sign(&self, next: &mut SliceStep) {
        if let SliceWrite::Create(slice) | SliceWrite::Replace(slice) = &mut next.write {
            let over = slice.metadata.resource_version.clone().unwrap_or_else(|| "0".into());
            let annotations = slice.metadata.annotations.get_or_insert_default();
            annotations.insert(status::WRITE_ID.to_owned(), format!("{}-{over}", self.name));
        }
    }

    /// Reads the slice whose write was not answered: the own id on it says that it was carried out.
    fn settle(&mut self, server: &Server, outcome: Outcome, settling: &Settling) {
        let Some(key) = self.current.clone() else { return };
        let found = server.slices.now.get(&settling.slice).filter(|_| outcome == Outcome::Answered);
        match found.filter(|s| facts::text(&s.metadata, status::WRITE_ID) == settling.id) {
            Some(slice) => self.absorb(&key, &Answer::Slice(Box::new(slice.clone()))),
            None => self.again(&key),
        }
    }

    fn absorb(&mut self, key: &ServiceKey, answer: &Answer) {
        let cache = Arc::make_mut(&mut self.index);
        let mut dirty = match answer {
            Answer::Slice(slice) if self.without == Without::AnswersInOrder => {
                cache.apply_slice((**slice).clone())
            }
            _ => take::answer(cache, key, answer, self.without),
        };
        if let Some(read) = &mut self.read {
            dirty.append(&mut take::answer(Arc::make_mut(read), key, answer, self.without));
        }
        // The watch will deliver nothing new: the other Services concerned are woken now.
        dirty.remove(key);
        self.queue.append(&mut dirty);
    }

    /// A write that was given up arrives; false when there is none.
    pub fn arrive(&mut self, server: &mut Server, ledger: &mut Ledger) -> Result<bool, Bad> {
        if self.flying.is_empty() {
            return Ok(false);
        }
        let late = self.flying.remove(0);
        let before = checks::Before::of(server);
        let version = server.version;
        // A webhook that puts everything back makes no write of it.
        if server.perform(&late.step).is_ok() && server.version != version {
            late.check(server, &before, ledger)?;
        }
        Ok(true)
    }

    pub(super) fn rest(&mut self) {
        if let Some(holds) = self.current.as_ref().and_then(|key| self.holds.get_mut(key)) {
            holds.over();
        }
        (self.current, self.read, self.reading, self.pending) = (None, None, None, None);
        (self.acting, self.answered) = (false, None);
        (self.reading_by_name, self.verified) = (None, Verified::default());
    }

    pub(super) fn again(&mut self, key: &ServiceKey) {
        self.rest();
        self.queue.insert(key.clone());
    }

    pub fn snapshot(&self, key: &ServiceKey) -> Snapshot {
        match &self.read {
            Some(index) => Snapshot { consistent: true, ..index.snapshot(key) },
            None => self.index.snapshot(key),
        }
    }

    /// What it knows of its watches.
    fn trust(&self) -> Trust {
        match () {
            () if !self.watches.iter().all(|w| w.listed) => Trust::Starting,
            () if self.lost => Trust::Lost,
            () => Trust::Live,
        }
    }

    fn decide(&self, key: &ServiceKey, now: Timestamp) -> (Snapshot, Marks, Decision) {
        let mut view = self.snapshot(key);
        let reach = view.decided_at();
        match self.without {
            Without::FreshOrRead => view.consistent |= self.watches.iter().all(|w| w.listed),
            Without::MarksOverServices => {
                let marks = view.slices.iter().map(|s| s.truth().marks.services);
                view.marks.services = marks.max().unwrap_or_default().max(view.marks.services);
            }
            Without::BegunSwitches => without_next_leader(&mut view.slices),
            _ => {}
        }
        let trust = match self.trust() {
            Trust::Lost if self.without == Without::Trust => Trust::Live,
            trust => trust,
        };
        if self.version > 1 {
            view.pods.iter_mut().for_each(youngest_first);
        }
        let blocked = self.blocked(key, &view, now);
        let ctx = Context {
            now,
            writer: &self.name,
            trust,
            blocked: &blocked,
            version: match self.without {
                Without::VersionsInOrder => 9,
                _ => self.version,
            },
            replicas: &self.members,
            verified: self.verified,
            takes_over: self.newer_gone.is_some_and(|since| since + TAKEOVER <= now),
        };
        let mut decision = decide::decide(&view, &ctx);
        if self.without == Without::FollowerEpoch
            && let Action::Do(Step::Slice(next)) = &decision.action
            && let Some(emptied) = emptied_follower(next)
        {
            // As if the follower had been emptied already.
            for slice in &mut view.slices {
                if *slice.name == emptied.metadata.name.clone().unwrap_or_default() {
                    let mut object = emptied.clone();
                    object.metadata.uid = Some(slice.uid.to_string());
                    object.metadata.resource_version = Some(slice.version.to_string());
                    let changed = Slice::trim(object);
                    *slice = std::sync::Arc::new(changed.expect("it was trimmed before"));
                }
            }
            decision = decide::decide(&view, &ctx);
        }
        (view, reach, decision)
    }

    /// Reads one object of those that a step rests on. Where one is not as it is known, all are read.
    fn read_by_name(&mut self, server: &Server, outcome: Outcome) {
        if outcome == Outcome::Failed {
            if let Some(key) = self.current.clone() {
                self.again(&key);
            }
            return;
        }
        let Some(reading) = &mut self.reading_by_name else { return };
        if let Some((kind, name)) = reading.left.pop()
            && !take::is_current(&self.index, server, kind, &name)
        {
            self.reading_by_name = None;
            self.reading = Some(Reading::default());
            return;
        }
        if reading.left.is_empty() {
            self.verified.add(&reading.inputs, &reading.step);
            self.reading_by_name = None;
        }
    }

    /// One list of a consistent read. The slices come first: a mark found on one of them was then
    /// written before the Services and the pods were read.
    fn read_on(&mut self, server: &Server, outcome: Outcome) {
        let Some(reading) = &mut self.reading else { return };
        if outcome == Outcome::Failed {
            if let Some(key) = self.current.clone() {
                self.again(&key);
            }
            return;
        }
        let version = Rv(server.version);
        let slices = || (server.slices.now.values().cloned().collect(), server.version);
        let first = self.without != Without::SlicesReadFirst;
        if first && reading.slices.is_none() {
            reading.slices = Some(slices());
            return;
        }
        let Some(index) = &mut reading.index else {
            let mut index = Index::new(NameRule::default(), Limits::default());
            take::services(&mut index, server, version, self.without);
            if !first {
                take::pods(&mut index, server, version, self.without);
            }
            reading.index = Some(index);
            return;
        };
        if first {
            take::pods(index, server, version, self.without);
        }
        let (slices, seen) = reading.slices.take().unwrap_or_else(slices);
        take::slices(index, slices, Rv(seen), self.without);
        self.read = reading.index.take().map(Arc::new);
        self.reading = None;
    }

    fn write(
        &mut self,
        server: &mut Server,
        outcome: Outcome,
        pending: Pending,
        ledger: &mut Ledger,
    ) -> Result<(), Bad> {
        let Some(key) = self.current.clone() else { return Ok(()) };
        self.verified.step = None;
        if outcome == Outcome::Late {
            self.flying.push(pending);
            self.again(&key);
            return Ok(());
        }
        let slice = match &pending.step {
            Step::Slice(next) => match &next.write {
                SliceWrite::Create(s) | SliceWrite::Replace(s) => Some(s),
                SliceWrite::Delete { .. } => None,
            },
            _ => None,
        };
        let settling = slice
            .map(|s| Settling { slice: s.name(), id: facts::text(&s.metadata, status::WRITE_ID) });
        if outcome == Outcome::Failed {
            self.again(&key);
            return Ok(());
        }
        let before = checks::Before::of(server);
        let version = server.version;
        match server.perform(&pending.step) {
            Ok(answer) => {
                if server.version == version {
                    self.changed_nothing(&key, &pending, server);
                } else {
                    pending.check(server, &before, ledger)?;
                    self.carried_out(&key, &pending.step, pending.now);
                }
                match (outcome, settling) {
                    (Outcome::AnswerLost, Some(settling)) => self.settling = Some(settling),
                    (Outcome::AnswerLost, None) => self.again(&key),
                    (Outcome::Slow, _) => self.answered = Some(answer),
                    _ => self.absorb(&key, &answer),
                }
            }
            Err(_) if outcome == Outcome::AnswerLost => match settling {
                Some(settling) => self.settling = Some(settling),
                None => self.again(&key),
            },
            Err(refusal) => self.refused(&key, &pending, refusal, server),
        }
        Ok(())
    }

    /// Visits everything that its next step depends on (for `digest`).
    pub fn visit(&self, server: &Server, part: &mut dyn FnMut(Part<'_>)) {
        let key = ServiceKey::new(NAMESPACE, "web");
        let mut flags = u64::from(self.current.is_some()) | u64::from(self.reading.is_some()) << 1;
        for (n, kind) in KINDS.into_iter().enumerate() {
            flags |= u64::from(self.watches[n].listed) << (2 + n);
            flags |= u64::from(self.lags(server, kind)) << (5 + n);
        }
        part(Part::Flags(flags));
        part(Part::View(&self.index.snapshot(&key)));
        if let Some(read) = &self.read {
            part(Part::View(&read.snapshot(&key)));
        }
        if let Some(reading) = &self.reading {
            if let Some((slices, version)) = &reading.slices {
                part(Part::Slices(slices, *version));
            }
            if let Some(index) = &reading.index {
                part(Part::View(&index.snapshot(&key)));
            }
        }
        for (kind, name) in self.reading_by_name.iter().flat_map(|r| &r.left) {
            part(Part::Flags(*kind as u64));
            part(Part::Text(name));
        }
        part(Part::Flags(self.verified.step.unwrap_or_default()));
        part(Part::Flags(self.verified.removal.map_or(0, |rv| rv.0 + 1)));
        if let Some(pending) = &self.pending {
            part(Part::Pending(&pending.step, &pending.reach, &pending.view));
        }
        if let Some(settling) = &self.settling {
            part(Part::Text(&settling.slice));
        }
        if let Some(answer) = &self.answered {
            part(Part::Answer(answer));
        }
    }
}

/// The emptied follower, if that is what the step writes: an epoch ahead and without an endpoint.
fn emptied_follower(next: &SliceStep) -> Option<EndpointSlice> {
    match &next.write {
        SliceWrite::Create(s) | SliceWrite::Replace(s) => {
            let empty = s.endpoints.as_ref().is_none_or(Vec::is_empty);
            (s.address_type == "IPv6" && empty && next.switch.is_none()).then(|| (**s).clone())
        }
        SliceWrite::Delete { .. } => None,
    }
}

/// The slices without the name of the next leader in a slice that was emptied for a switch.
fn without_next_leader(slices: &mut [Arc<Slice>]) {
    let lock = slices.iter().find(|s| s.family() == Some(Family::V4));
    let Some(epoch) = lock.map(|s| s.truth().epoch) else { return };
    for slice in slices.iter_mut().filter(|s| s.family() == Some(Family::V6)) {
        let Some(mut object) = slice.object.as_deref().cloned() else { continue };
        let emptied = object.endpoints.as_ref().is_none_or(Vec::is_empty);
        if emptied && slice.truth().epoch > epoch {
            object.metadata.annotations.get_or_insert_default().remove(status::LEADER_POD_UID);
            *slice = Arc::new(Slice::trim(object).expect("it was trimmed before"));
        }
    }
}

/// The rule of another version: the youngest pod leads.
fn youngest_first(pod: &mut Arc<Pod>) {
    let pod = Arc::make_mut(pod);
    pod.created = at(0) - pod.created.duration_since(at(0));
}

impl Pending {
    /// Checks it after the server has accepted it.
    fn check(&self, server: &Server, before: &Before, ledger: &mut Ledger) -> Result<(), Bad> {
        if self.other_history {
            ledger.wrote_from_other_history(&self.step);
            return Ok(());
        }
        checks::sure(&self.step, self.unsure)?;
        ledger.held_back = self.held_back;
        if !ledger.harm_only && !ledger.restored {
            fresh(server, self.since, &self.source.name, &self.step)?;
        }
        ledger.wrote(server, before, &self.step, &self.view, self.reach, self.now)
    }
}
