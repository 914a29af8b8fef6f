//! What a run measured: its tables and figures, its settings and the versions of what it ran on. It is
//! printed at once, and kept for one JSON file with pictures beside it. Nothing here touches a cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::plot;

/// A table as it was printed.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    pub measurement: String,
    /// The binary of a comparison: A or B.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
    pub title: String,
    pub time: String,
    /// The load averages of the machine when the table was printed.
    pub load: Vec<f64>,
    pub head: Vec<String>,
    /// Cells that are numbers are numbers here too.
    pub rows: Vec<Vec<Value>>,
}

/// What one picture shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// For each name one bar for each of `parts`.
    Bars { unit: String, parts: Vec<String>, values: Vec<(String, Vec<f64>)> },
    /// Points of named lines.
    Lines { across: String, up: String, lines: Vec<(String, Vec<(f64, f64)>)> },
}

/// A picture; `name` is part of its file's name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    pub name: String,
    pub title: String,
    #[serde(flatten)]
    pub shape: Shape,
}

/// Everything of a run.
#[derive(Debug, Default, Serialize)]
pub struct Results {
    pub run: String,
    pub began: String,
    pub versions: Map<String, Value>,
    pub settings: BTreeMap<String, Value>,
    pub tables: Vec<Table>,
    pub figures: Vec<Figure>,
    #[serde(skip)]
    measurement: String,
    #[serde(skip)]
    binary: Option<String>,
}

static ALL: Mutex<Option<Results>> = Mutex::new(None);

/// The results of this process; a measurement that panicked does not spoil them.
fn all() -> MutexGuard<'static, Option<Results>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<T>(act: impl FnOnce(&mut Results) -> T) -> T {
    act(all().get_or_insert_default())
}

/// The name of the run, and when it began.
pub fn begin(run: &str, versions: Map<String, Value>) {
    let began = now();
    with(|r| (r.run, r.began, r.versions) = (run.to_owned(), began, versions));
}

/// What is measured from now on, and with which binary of a comparison.
pub fn measuring(measurement: &str, binary: Option<&str>) {
    with(|r| (r.measurement, r.binary) = (measurement.to_owned(), binary.map(str::to_owned)));
}

/// Keeps a setting with the value that is used.
pub fn used(name: &str, value: &str) {
    with(|r| r.settings.insert(name.to_owned(), cell(value)));
}

/// Keeps a table; returns its time and its load averages.
pub fn keep(title: &str, head: &[&str], rows: &[Vec<String>]) -> (String, Vec<f64>) {
    let (time, load) = (now(), load());
    with(|r| {
        r.tables.push(Table {
            measurement: r.measurement.clone(),
            binary: r.binary.clone(),
            title: title.to_owned(),
            time: time.clone(),
            load: load.clone(),
            head: head.iter().map(|h| (*h).to_owned()).collect(),
            rows: rows.iter().map(|row| row.iter().map(|c| cell(c)).collect()).collect(),
        });
    });
    (time, load)
}

/// Keeps a figure. One of the same name is replaced: the last round is drawn.
pub fn draw(name: &str, title: &str, shape: Shape) {
    with(|r| {
        let name = r.binary.as_ref().map_or_else(|| name.to_owned(), |b| format!("{name}-{b}"));
        r.figures.retain(|f| f.name != name);
        r.figures.push(Figure { name, title: title.to_owned(), shape });
    });
}

/// The tables of one measurement so far.
pub fn tables_of(measurement: &str) -> Vec<Table> {
    with(|r| r.tables.iter().filter(|t| t.measurement == measurement).cloned().collect())
}

/// Writes RUN.json and RUN-FIGURE.svg into a directory, over those of an earlier call.
pub fn write(dir: &Path) -> Result<(), String> {
    let (run, text, figures) = with(|r| {
        let text = serde_json::to_string_pretty(&json!(r)).unwrap_or_default();
        (r.run.clone(), text, r.figures.clone())
    });
    std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    let path = dir.join(format!("{run}.json"));
    std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    for figure in figures {
        let path = dir.join(format!("{run}-{}.svg", figure.name));
        let svg = plot::svg(&figure)?;
        std::fs::write(&path, svg).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// A cell as JSON: a number if it is one, nothing if there was nothing to measure.
fn cell(text: &str) -> Value {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => json!(number),
        Ok(_) => Value::Null,
        Err(_) => json!(text),
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// The load averages of the machine.
pub fn load() -> Vec<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).filter_map(|word| word.parse().ok()).collect()
}
