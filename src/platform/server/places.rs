//! The places of a server: which connections are open, from which address, and which one gives way to another.
//!
//! Only the bookkeeping; `connection` serves, and closes what is told to go here. Decision:
//! docs/decisions/places-of-connections.md.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ServerLimits;
use crate::platform::clock::monotonic;
use crate::platform::metrics::{Closing, Metrics};

/// A caller that has not sent a whole request after this time is the first to give way. The API server waits
/// a second for its answer (deploy/manifests/60-webhooks.yaml), so its request is here earlier.
const PROMPT: Duration = Duration::from_secs(1);
/// Connections that may take their time to part. They have no place any more, so their number needs a bound.
const PARTING: usize = 100;
/// How often a connection is looked at again that waits for us and not for its client.
const LOOK: Duration = Duration::from_secs(1);

/// How a connection is told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    /// At once: it has delivered no whole request.
    Now,
    /// After what is under way, with GOAWAY in HTTP/2.
    Gently,
}

/// What the time limits say about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Look again then.
    At(Instant),
    /// Its first whole request is late.
    Late,
    /// It was idle for too long, or a client does not take its answer.
    Over,
}

/// No connection could give way to a new one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The open connections of one server.
pub(super) struct Places {
    server: &'static str,
    limits: ServerLimits,
    metrics: Arc<Metrics>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: u64,
    open: HashMap<u64, Place>,
    addresses: HashMap<IpAddr, Held>,
    /// Connections that have been told to go.
    leaving: usize,
    parting: usize,
    /// Requests beyond the first of each connection.
    extra: usize,
}

/// What one address holds, without what was told to go. Ordered, because a client that opens connections as
/// fast as it can makes each of them look for another one that goes.
#[derive(Default)]
struct Held {
    connections: usize,
    extra: usize,
    /// Those without a whole request. The numbers grow, so the oldest one comes first.
    new: BTreeSet<u64>,
    /// Those without a request under way, by the time of the last one.
    idle: BTreeSet<(Instant, u64)>,
}

impl Held {
    /// First what sends no whole request, then what has been quiet for longest.
    fn victim(&self, open: &HashMap<u64, Place>, now: Instant) -> Option<u64> {
        let new = self.new.first().and_then(|id| open.get(id).map(|place| (*id, place)));
        match (new, self.idle.first()) {
            (Some((id, place)), Some((quiet, idle))) => {
                Some(if place.is_late(now) || place.quiet < *quiet { id } else { *idle })
            }
            (new, idle) => new.map(|(id, _)| id).or(idle.map(|(_, id)| *id)),
        }
    }
}

struct Place {
    address: IpAddr,
    /// It has delivered a whole request.
    proven: bool,
    under_way: usize,
    /// From when requests have been under way without a pause.
    busy: Instant,
    /// From when the time for its first whole request counts.
    since: Instant,
    /// From when that time stands still, because the request waits for us and not for its client.
    paused: Option<Instant>,
    /// When it was opened, or its last request ended.
    quiet: Instant,
    /// Empty once it was told to go.
    go: Option<oneshot::Sender<Go>>,
    parting: bool,
}

impl Place {
    fn is_late(&self, now: Instant) -> bool {
        !self.proven && self.paused.is_none() && now - self.since > PROMPT
    }

    fn resume(&mut self, now: Instant) {
        if let Some(paused) = self.paused.take() {
            self.since += now - paused;
        }
    }
}

impl Table {
    /// The connection that gives way: one of the address with the most connections. The new one counts, and
    /// its address gives way if another has as many.
    fn victim(&self, new: Option<IpAddr>, only_own: bool, now: Instant) -> Option<u64> {
        let held = self.addresses.iter().map(|(address, held)| (held, new == Some(*address)));
        held.filter(|(_, own)| *own || !only_own)
            .filter(|(held, _)| !held.new.is_empty() || !held.idle.is_empty())
            .max_by_key(|(held, own)| (held.connections + usize::from(*own), *own))
            .and_then(|(held, _)| held.victim(&self.open, now))
    }

    /// Changes a place, and where its address lists it.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut Place)) {
        self.unlist(id);
        let Some(place) = self.open.get_mut(&id) else { return };
        change(place);
        if place.go.is_some()
            && let Some(held) = self.addresses.get_mut(&place.address)
        {
            if !place.proven {
                held.new.insert(id);
            } else if place.under_way == 0 {
                held.idle.insert((place.quiet, id));
            }
        }
    }

    fn unlist(&mut self, id: u64) {
        if let Some(place) = self.open.get(&id)
            && let Some(held) = self.addresses.get_mut(&place.address)
        {
            held.new.remove(&id);
            held.idle.remove(&(place.quiet, id));
        }
    }

    fn held(&mut self, address: IpAddr, change: impl FnOnce(&mut Held)) {
        let held = self.addresses.entry(address).or_default();
        change(held);
        if held.connections == 0 && held.extra == 0 {
            self.addresses.remove(&address);
        }
    }

    /// Takes the place of a connection away; it is closed by its own task.
    fn dismiss(&mut self, id: u64) -> Option<(oneshot::Sender<Go>, Go)> {
        let gently = self.parting < PARTING;
        self.unlist(id);
        let place = self.open.get_mut(&id)?;
        let sender = place.go.take()?;
        place.parting = place.proven && gently;
        let (address, go) = (place.address, if place.parting { Go::Gently } else { Go::Now });
        self.parting += usize::from(go == Go::Gently);
        self.leaving += 1;
        self.held(address, |held| held.connections -= 1);
        Some((sender, go))
    }
}

impl Places {
    pub(super) fn new(
        server: &'static str,
        limits: ServerLimits,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        metrics.begin_connections(server);
        Arc::new(Self { server, limits, metrics, table: Mutex::default() })
    }

    /// Open connections, also those that were told to go.
    pub(super) fn open(&self) -> usize {
        self.table.lock().open.len()
    }

    /// Gives a new connection a place. If all are taken, or all that its address may have, another
    /// connection is told to go.
    pub(super) fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        now: Instant,
    ) -> Result<(Seat, oneshot::Receiver<Go>), Full> {
        let mut table = self.table.lock();
        let own = table.addresses.get(&address).map_or(0, |held| held.connections);
        let most = self.limits.connections_per_address;
        let full = if most > 0 && own >= most {
            Some(Closing::AddressLimit)
        } else if table.open.len() - table.leaving >= self.limits.connections {
            Some(Closing::MadeRoom)
        } else {
            None
        };
        if let Some(reason) = full
            && !self.tell_one(&mut table, Some(address), reason, now)
        {
            self.metrics.connection_closed(self.server, Closing::Refused);
            return Err(Full);
        }
        let (sender, receiver) = oneshot::channel();
        table.last += 1;
        let id = table.last;
        let place = Place {
            address,
            proven: false,
            under_way: 0,
            busy: now,
            since: now,
            paused: None,
            quiet: now,
            go: Some(sender),
            parting: false,
        };
        table.open.insert(id, place);
        table.held(address, |held| held.connections += 1);
        table.change(id, |_| {});
        self.metrics.set_connections(self.server, table.open.len());
        Ok((Seat { places: Arc::clone(self), id, address }, receiver))
    }

    /// Tells a connection to go because the process has no file descriptor for a new one.
    pub(super) fn make_room(&self, now: Instant) {
        self.tell_one(&mut self.table.lock(), None, Closing::MadeRoom, now);
    }

    fn tell_one(
        &self,
        table: &mut Table,
        new: Option<IpAddr>,
        reason: Closing,
        now: Instant,
    ) -> bool {
        let victim = table.victim(new, reason == Closing::AddressLimit, now);
        let Some((sender, go)) = victim.and_then(|id| table.dismiss(id)) else { return false };
        // If its task has just ended, the place is free all the same.
        let _ = sender.send(go);
        self.metrics.connection_closed(self.server, reason);
        true
    }

    /// A request begins; `None` if too many are under way. The only request of a connection is always taken:
    /// the places bound those.
    pub(super) fn begin(self: &Arc<Self>, seat: &SeatId) -> Option<UnderWay> {
        let mut table = self.table.lock();
        let extra = table.open.get(&seat.id).is_some_and(|place| place.under_way > 0);
        if extra {
            let own = table.addresses.get(&seat.address).map_or(0, |held| held.extra);
            let most = self.limits.connections_per_address;
            if table.extra >= self.limits.connections || (most > 0 && own >= most) {
                return None;
            }
            table.extra += 1;
            table.held(seat.address, |held| held.extra += 1);
        }
        table.change(seat.id, |place| {
            let now = monotonic();
            if place.under_way == 0 {
                place.busy = now;
            }
            place.under_way += 1;
            place.paused.get_or_insert(now);
        });
        Some(UnderWay { places: Arc::clone(self), seat: *seat, extra })
    }
}

/// Names a place; the connection itself has the [`Seat`].
#[derive(Clone, Copy, Debug)]
pub(super) struct SeatId {
    id: u64,
    pub(super) address: IpAddr,
}

/// The place of one connection. It is free when this is dropped.
pub(super) struct Seat {
    places: Arc<Places>,
    id: u64,
    address: IpAddr,
}

impl Seat {
    pub(super) fn id(&self) -> SeatId {
        SeatId { id: self.id, address: self.address }
    }

    /// What the time limits say now.
    pub(super) fn next(&self, now: Instant) -> Next {
        let limits = &self.places.limits;
        let table = self.places.table.lock();
        let Some(place) = table.open.get(&self.id) else { return Next::Over };
        let (ends, over) = match place.proven {
            false if place.paused.is_none() => (place.since + limits.first_request, Next::Late),
            false => return Next::At(now + LOOK),
            true if place.under_way == 0 => (place.quiet + limits.idle, Next::Over),
            true => (place.busy + limits.answer, Next::Over),
        };
        if ends <= now { over } else { Next::At(ends) }
    }

    /// Whether a request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.places.table.lock().open.get(&self.id).is_some_and(|place| place.under_way > 0)
    }

    /// Gives the place up before the connection is closed.
    pub(super) fn leave(&self) {
        self.places.table.lock().dismiss(self.id);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.places.table.lock();
        table.unlist(self.id);
        if let Some(place) = table.open.remove(&self.id) {
            if place.go.is_some() {
                table.held(place.address, |held| held.connections -= 1);
            } else {
                table.leaving -= 1;
                table.parting -= usize::from(place.parting);
            }
        }
        self.places.metrics.set_connections(self.places.server, table.open.len());
    }
}

/// A request under way, until this is dropped.
pub(super) struct UnderWay {
    places: Arc<Places>,
    seat: SeatId,
    extra: bool,
}

impl UnderWay {
    /// The body is read from now on: the client has the time of a first request for it. Before, the request
    /// waited for us.
    pub(super) fn reads(&self) {
        let mut table = self.places.table.lock();
        if let Some(place) = table.open.get_mut(&self.seat.id) {
            place.resume(monotonic());
        }
    }

    /// The request has arrived to its last byte.
    pub(super) fn is_whole(&self) {
        self.places.table.lock().change(self.seat.id, |place| place.proven = true);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut table = self.places.table.lock();
        if self.extra {
            table.extra -= 1;
            table.held(self.seat.address, |held| held.extra -= 1);
        }
        table.change(self.seat.id, |place| {
            place.under_way -= 1;
            let now = monotonic();
            place.resume(now);
            if place.proven {
                place.quiet = now;
            }
        });
    }
}
