//! Random histories: whatever happens, the sink ends up with what the server has.

use proptest::prelude::*;

use super::*;

/// What happens to the server and to the connections.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Remove(u8),
    EndWatches { reset: bool },
    Compact,
    Mute(u8),
    FailWatches(u8, u8),
    FailLists(u8, u8),
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..5, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        3 => (0u8..5).prop_map(Step::Remove),
        2 => any::<bool>().prop_map(|reset| Step::EndWatches { reset }),
        1 => Just(Step::Compact),
        1 => (1u8..60).prop_map(Step::Mute),
        2 => (0u8..5, 1u8..4).prop_map(|(f, n)| Step::FailWatches(f, n)),
        1 => (0u8..5, 1u8..4).prop_map(|(f, n)| Step::FailLists(f, n)),
        4 => (0u8..40).prop_map(Step::Wait),
    ]
}

fn fault(which: u8) -> Fault {
    match which {
        0 => Fault::Reset,
        1 => Fault::Stall,
        2 => Fault::Plain(429, Some("1")),
        3 => Fault::Status(500, "InternalError", "etcd"),
        _ => Fault::Status(410, "Expired", "too old"),
    }
}

async fn happen(api: &FakeApi, step: Step) {
    let name = |k: u8| format!("m{k}");
    match step {
        Step::Put(k, v) => put(api, &name(k), &v.to_string()),
        Step::Remove(k) => {
            if api.get(&format!("{MAPS}/{}", name(k))).is_some() {
                remove(api, &name(k));
            }
        }
        Step::EndWatches { reset } => api.end_watches(reset),
        Step::Compact => api.compact(),
        Step::Mute(n) => {
            api.mute_watches();
            seconds(n.into()).await;
        }
        Step::FailWatches(f, n) => api.fail("WATCH", MAPS, n.into(), fault(f)),
        Step::FailLists(f, n) => api.fail("GET", MAPS, n.into(), fault(f)),
        Step::Wait(n) => seconds(n.into()).await,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever happens, in the end the sink has what the server has, and every position that was
    /// ever shown was one the server had reached.
    #[test]
    fn the_sink_ends_up_with_what_the_server_has(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let api = FakeApi::new();
            let scene = Scene::new(&api);
            for step in steps {
                happen(&api, step).await;
                tokio::task::yield_now().await;
                assert!(scene.handle.position() <= Rv(api.version()));
            }
            api.forgive();
            let end = monotonic() + Duration::from_mins(3);
            tokio::time::sleep_until(end).await;
            let wanted: Vec<String> = (0u8..5)
                .filter_map(|k| {
                    let map = api.get(&format!("{MAPS}/m{k}"))?;
                    Some(format!("m{k}={}", map["data"]["v"].as_str().unwrap()))
                })
                .collect();
            assert_eq!(scene.notes.maps(), wanted);
            assert_eq!(scene.handle.state(), WatchState::Live);
            assert_eq!(scene.handle.position(), Rv(api.version()));
        });
    }
}
