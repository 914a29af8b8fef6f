//! Runs the tests: phases, deadlines, the report of a failure. Set-up happens before the first test that
//! needs it, tear-down always.

use std::collections::HashMap;
use std::future::Future;
use std::panic;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::case::Case;
use super::cluster::{self, Cluster};
use super::world::{self, TEST_DEADLINE, THREADS, World};

type Body = Box<dyn Fn(Arc<Case>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// One test.
pub struct Test {
    pub name: String,
    body: Body,
    deadline: Duration,
    missing: Option<String>,
}

impl Test {
    pub fn new<F>(module: &str, name: &str, body: fn(Arc<Case>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let module = module.rsplit("::").next().unwrap_or(module);
        Self {
            name: format!("{module}::{name}"),
            body: Box::new(move |case| Box::pin(body(case))),
            deadline: TEST_DEADLINE,
            missing: None,
        }
    }

    /// With a deadline of its own.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The test is skipped if this is missing; in CI that is a failure.
    pub fn needs<T>(mut self, thing: Result<T, String>) -> Self {
        self.missing = thing.err();
        self
    }
}

/// Lists the tests of a module.
#[allow(unused_macros, reason = "the bench shares this frame and has no tests")]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub fn tests() -> Vec<$crate::support::harness::Test> {
            vec![$($crate::support::harness::Test::new(module_path!(), stringify!($name), $name)),*]
        }
    };
}
#[allow(unused_imports, reason = "see above")]
pub(crate) use tests;

/// Tests that run together, or one after the other with the replicas to themselves.
pub struct Phase {
    pub tests: Vec<Test>,
    pub alone: bool,
}

/// How many of the longest tests are listed.
const LONGEST: usize = 25;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static WORLD: OnceLock<Result<Arc<World>, String>> = OnceLock::new();

fn runtime() -> &'static Runtime {
    RUNTIME
        .get_or_init(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

fn world(cluster: &Cluster) -> Result<Arc<World>, String> {
    let made = WORLD.get_or_init(|| {
        // On a worker thread: the replicas end with the thread that started them.
        let run = world::fresh();
        let world = World::set_up(cluster.clone(), run.clone());
        let world = runtime().spawn(NAME.scope("set-up".to_owned(), world));
        match runtime().block_on(world) {
            Ok(world) => Ok(Arc::new(world)),
            Err(e) => {
                runtime().block_on(World::abandon(cluster.clone(), run));
                Err(format!("set-up failed: {}", words(e, "set-up")))
            }
        }
    });
    made.clone()
}

/// The whole run; its exit code.
pub fn main(phases: [Phase; 2]) -> ExitCode {
    let mut args = Arguments::from_args();
    let cluster = Cluster::from_env().and_then(world::suited);
    remember_panics();
    let mut code = ExitCode::SUCCESS;
    for phase in phases {
        args.test_threads = match (phase.alone, args.test_threads) {
            (true, _) => Some(1),
            (false, None) => Some(THREADS),
            (false, given) => given,
        };
        let trials = phase.tests.into_iter().map(|t| trial(t, phase.alone, cluster.clone()));
        let conclusion = libtest_mimic::run(&args, trials.collect());
        if conclusion.has_failed() {
            code = ExitCode::FAILURE;
        }
    }
    if let Err(why) = &cluster
        && !args.list
    {
        println!("not run, there is no cluster: {why}");
    }
    if let Some(Ok(world)) = WORLD.get() {
        runtime().block_on(world.clone().tear_down());
    }
    let mut took = std::mem::take(&mut *TOOK.lock().unwrap());
    took.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
    let all: Duration = took.iter().map(|(_, took)| *took).sum();
    println!("{} tests, one after the other {} s; the longest:", took.len(), all.as_secs());
    for (name, took) in took.iter().take(LONGEST) {
        println!("{:>5} s  {name}", took.as_secs());
    }
    // Repeated at the end, where a reader of a long log looks first.
    for why in FAILED.lock().unwrap().iter() {
        println!("failed: {why}");
    }
    code
}

fn trial(test: Test, alone: bool, cluster: Result<Cluster, String>) -> Trial {
    let name = test.name.clone();
    let cluster = cluster.and_then(|c| match &test.missing {
        Some(why) => {
            println!("{name}: not run: {why}");
            Err(why.clone())
        }
        None => Ok(c),
    });
    match cluster {
        Ok(cluster) => Trial::test(name, move || run(&test, alone, &cluster)),
        Err(why) => Trial::test(name, move || Err(Failed::from(format!("not run: {why}"))))
            .with_ignored_flag(!cluster::in_ci()),
    }
}

fn run(test: &Test, alone: bool, cluster: &Cluster) -> Result<(), Failed> {
    let world = world(cluster)?;
    let runtime = runtime();
    let (name, began) = (test.name.clone(), Instant::now());
    let outcome = runtime.block_on(runtime.spawn(NAME.scope(name.clone(), {
        let (world, name) = (world.clone(), name.clone());
        async move {
            world.prepare(alone).await;
            Arc::new(Case::open(world, &name).await)
        }
    })));
    let case = outcome.map_err(|e| words(e, &name))?;
    let mut task = runtime.spawn(NAME.scope(name.clone(), (test.body)(case.clone())));
    let outcome = runtime.block_on(async { timeout(test.deadline, &mut task).await });
    let result = match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(words(e, &name)),
        Err(_) => {
            task.abort();
            Err(format!("the test did not end within {:?}", test.deadline))
        }
    };
    runtime.block_on(async {
        let result = match result {
            Ok(()) => Ok(()),
            Err(why) => {
                FAILED.lock().unwrap().push(format!("{name}: {why}"));
                let report = format!("{why}\n{}", case.dump().await);
                // Written at once: a run that is ended early still shows why a test failed.
                let _ = std::fs::write(case.world.dir.join(format!("{}.failed", case.ns)), &report);
                Err(Failed::from(report))
            }
        };
        case.close().await;
        TOOK.lock().unwrap().push((name, began.elapsed()));
        result
    })
}

tokio::task_local! {
    static NAME: String;
}
static FAILED: Mutex<Vec<String>> = Mutex::new(Vec::new());
static TOOK: Mutex<Vec<(String, Duration)>> = Mutex::new(Vec::new());
static PANICS: Mutex<Option<HashMap<String, String>>> = Mutex::new(None);

/// Keeps the place and message of a panic for the report of its test, instead of printing it in between.
fn remember_panics() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let Ok(name) = NAME.try_with(Clone::clone) else { return default(info) };
        let text = info.payload_as_str().unwrap_or("panicked");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let mut panics = PANICS.lock().unwrap();
        panics.get_or_insert_default().insert(name, format!("{place}: {text}"));
    }));
}

fn words(error: tokio::task::JoinError, name: &str) -> String {
    if let Some(text) = PANICS.lock().unwrap().as_mut().and_then(|p| p.remove(name)) {
        return text;
    }
    match error.try_into_panic() {
        Ok(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(other) => other.downcast::<&str>().map_or("panicked".into(), |t| (*t).to_owned()),
        },
        Err(error) => error.to_string(),
    }
}
