//! Which connection gives way, as a table of states; no sockets.

use std::net::Ipv4Addr;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

type Open = (Seat, oneshot::Receiver<Go>);

struct Scene {
    places: Arc<Places>,
    metrics: Arc<Metrics>,
}

impl Scene {
    fn new(connections: usize, connections_per_address: usize) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let limits =
            ServerLimits { connections, connections_per_address, ..ServerLimits::default() };
        Self { places: Places::new("webhook", limits, metrics.clone()), metrics }
    }

    fn open(&self, from: u8) -> Open {
        self.check_lists();
        self.places.admit(address(from), monotonic()).unwrap()
    }

    fn begin(&self, open: &Open) -> UnderWay {
        self.check_lists();
        self.places.begin(&open.0.id()).unwrap()
    }

    /// What addresses list is what the places say.
    fn check_lists(&self) {
        let table = self.places.table.lock();
        for (address, held) in &table.addresses {
            let own = || table.open.iter().filter(|(_, p)| p.address == *address && p.go.is_some());
            let new = own().filter(|(_, p)| !p.proven).map(|(id, _)| *id).collect();
            let idle = own().filter(|(_, p)| p.proven && p.under_way == 0);
            let idle = idle.map(|(id, p)| (p.quiet, *id)).collect();
            assert_eq!((own().count(), &new, &idle), (held.connections, &held.new, &held.idle));
        }
    }

    /// A whole request and its answer.
    fn ask(&self, open: &Open) {
        self.begin(open).is_whole();
    }

    /// A connection with one request behind it.
    fn idle(&self, from: u8) -> Open {
        let open = self.open(from);
        self.ask(&open);
        open
    }

    fn counted(&self, reason: &str) -> Option<u64> {
        let line =
            format!("zen_lead_connections_closed_total{{reason=\"{reason}\",server=\"webhook\"}} ");
        let text = self.metrics.exposition().unwrap();
        text.lines().find_map(|l| l.strip_prefix(&line)).map(|n| n.parse().unwrap())
    }
}

fn told(open: &mut Open) -> Option<Go> {
    open.1.try_recv().ok()
}

async fn later(seconds: u32) {
    tokio::time::sleep(SECOND * seconds).await;
}

#[tokio::test(start_paused = true)]
async fn the_one_that_was_idle_for_longest_gives_way() {
    let scene = Scene::new(3, 0);
    let mut first = scene.idle(1);
    later(1).await;
    let mut second = scene.idle(1);
    later(1).await;
    scene.ask(&first);
    later(1).await;
    let mut busy = scene.open(1);
    let under_way = scene.begin(&busy);
    under_way.is_whole();

    let new = scene.idle(1);
    assert_eq!((told(&mut first), told(&mut second)), (None, Some(Go::Gently)));
    drop(second);
    later(1).await;
    let newer = scene.idle(1);
    assert_eq!((told(&mut first), told(&mut busy)), (Some(Go::Gently), None));
    let _under_way = (scene.begin(&new), scene.begin(&newer));
    assert!(scene.places.admit(address(1), monotonic()).is_err(), "all are at work");
    assert_eq!((scene.counted("made_room"), scene.counted("refused")), (Some(2), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn what_sends_no_whole_request_goes_first_but_not_while_it_is_new() {
    let scene = Scene::new(2, 0);
    let mut idle = scene.idle(1);
    later(1).await;
    let mut new = scene.open(1);
    // A second later it would be the turn of the new one.
    let mut third = scene.open(1);
    assert_eq!((told(&mut idle), told(&mut new)), (Some(Go::Gently), None));
    drop(idle);
    later(2).await;
    scene.ask(&new);
    let _fourth = scene.open(1);
    assert_eq!((told(&mut new), told(&mut third)), (None, Some(Go::Now)));
}

#[tokio::test(start_paused = true)]
async fn a_first_request_without_an_end_may_go_and_a_whole_one_not() {
    let scene = Scene::new(2, 0);
    let (mut whole, mut half) = (scene.open(1), scene.open(1));
    let requests = [scene.begin(&whole), scene.begin(&half)];
    requests[0].is_whole();
    let _new = scene.open(1);
    assert_eq!((told(&mut whole), told(&mut half)), (None, Some(Go::Now)));
}

#[tokio::test(start_paused = true)]
async fn the_address_with_the_most_connections_gives_way() {
    let scene = Scene::new(6, 0);
    let mut honest: Vec<Open> = (0..2).map(|_| scene.idle(1)).collect();
    later(5).await;
    let mut others: Vec<Open> = (0..4).map(|_| scene.open(2)).collect();
    let mut new = scene.open(1);
    assert_eq!(others.iter_mut().filter_map(told).collect::<Vec<_>>(), [Go::Now]);
    assert_eq!(honest.iter_mut().filter_map(told).count(), 0, "although they were idle longer");
    // Both have three now. A further connection takes none from the address that has as many.
    others.push(scene.open(2));
    assert_eq!(told(&mut new).or(honest.iter_mut().find_map(told)), None);
    assert_eq!(others.iter_mut().filter_map(told).collect::<Vec<_>>(), [Go::Now]);
}

#[tokio::test(start_paused = true)]
async fn above_its_bound_an_address_takes_only_from_itself() {
    let scene = Scene::new(10, 2);
    let mut other = scene.idle(1);
    later(1).await;
    let (mut first, second) = (scene.idle(2), scene.idle(2));
    let third = scene.open(2);
    assert_eq!((told(&mut first), told(&mut other)), (Some(Go::Gently), None));
    let at_work = [scene.begin(&second), scene.begin(&third)];
    at_work.iter().for_each(UnderWay::is_whole);
    assert!(scene.places.admit(address(2), monotonic()).is_err());
    assert!(scene.places.admit(address(1), monotonic()).is_ok());
    assert_eq!((scene.counted("address_limit"), scene.counted("refused")), (Some(1), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn streams_beyond_the_first_of_each_connection_have_a_bound() {
    let scene = Scene::new(6, 4);
    let (one, two, other) = (scene.open(1), scene.open(1), scene.open(2));
    let mut requests: Vec<UnderWay> = (0..5).map(|_| scene.begin(&one)).collect();
    assert!(scene.places.begin(&one.0.id()).is_none(), "four beyond the first");
    requests.push(scene.begin(&two));
    assert!(scene.places.begin(&two.0.id()).is_none(), "of the same address");
    requests.extend((0..3).map(|_| scene.begin(&other)));
    assert!(scene.places.begin(&other.0.id()).is_none(), "six of all");
    drop(requests);
    assert!(scene.places.begin(&one.0.id()).is_some());
    drop((one, two, other));
    let table = scene.places.table.lock();
    assert_eq!((table.open.len(), table.addresses.len(), table.extra), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_first_request_has_its_time_and_what_waits_for_us_does_not_count() {
    let scene = Scene::new(10, 0);
    let limit = ServerLimits::default().first_request;
    let (open, began) = (scene.open(1), monotonic());
    later(3).await;
    let under_way = scene.begin(&open);
    later(60).await;
    assert_eq!(open.0.next(monotonic()), Next::At(monotonic() + LOOK));
    under_way.reads();
    assert_eq!(open.0.next(monotonic()), Next::At(began + 60 * SECOND + limit));
    later(2).await;
    assert_eq!(open.0.next(monotonic()), Next::Late);
    drop(under_way);
    assert_eq!(open.0.next(monotonic()), Next::Late, "an answer to half a request does not help");
    scene.ask(&open);
    let idle = ServerLimits::default().idle;
    assert_eq!(open.0.next(monotonic()), Next::At(monotonic() + idle));
    tokio::time::sleep(idle).await;
    assert_eq!(open.0.next(monotonic()), Next::Over);
}

#[tokio::test(start_paused = true)]
async fn an_answer_has_its_time_and_a_pause_begins_it_anew() {
    let scene = Scene::new(10, 0);
    let limit = ServerLimits::default().answer;
    let open = scene.idle(1);
    let first = scene.begin(&open);
    let began = monotonic();
    later(10).await;
    let second = scene.begin(&open);
    drop(first);
    assert_eq!(open.0.next(monotonic()), Next::At(began + limit), "one is still under way");
    drop(second);
    let third = scene.begin(&open);
    assert_eq!(open.0.next(monotonic()), Next::At(monotonic() + limit));
    tokio::time::sleep(limit).await;
    assert_eq!(open.0.next(monotonic()), Next::Over);
    drop(third);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_part_gently_and_leaving_ones_hold_no_place() {
    let scene = Scene::new(PARTING + 1, 0);
    let mut old: Vec<Open> = (0..=PARTING).map(|_| scene.idle(1)).collect();
    later(1).await;
    let new: Vec<Open> = (0..=PARTING).map(|_| scene.idle(1)).collect();
    let told: Vec<Go> = old.iter_mut().filter_map(told).collect();
    assert_eq!(told.iter().filter(|go| **go == Go::Gently).count(), PARTING);
    assert_eq!(told.last(), Some(&Go::Now));
    assert_eq!(scene.places.open(), 2 * PARTING + 2, "until they have ended");
    drop((old, new));
    let table = scene.places.table.lock();
    assert_eq!((table.leaving, table.parting, table.addresses.len()), (0, 0, 0));
}
