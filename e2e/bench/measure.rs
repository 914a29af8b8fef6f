//! Samples, tables and the settings of a run. Nothing here touches a cluster. `results` keeps the tables.

use std::env;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

use super::results;

/// Measured values in order.
pub struct Sample(Vec<f64>);

impl Sample {
    pub fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that this share of the values does not exceed; NaN without any.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The share of values above this one.
    pub fn above(&self, limit: f64) -> f64 {
        let late = self.0.iter().filter(|value| **value > limit).count();
        count(late) / count(self.len())
    }

    pub fn max(&self) -> f64 {
        self.quantile(1.0)
    }
}

/// Milliseconds from one moment to another; negative if the other came first.
pub fn between(from: Instant, to: Instant) -> f64 {
    if to >= from { ms(to - from) } else { -ms(from - to) }
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// `ZEN_LEAD_BENCH_<name>`, or the default; a value that cannot be read ends the run.
pub fn setting<T: FromStr + Clone + Display>(name: &str, default: T) -> T {
    let mut values = settings(name, &[default]);
    assert_eq!(values.len(), 1, "ZEN_LEAD_BENCH_{name} takes one value");
    values.remove(0)
}

/// As [`setting`], a list with commas.
pub fn settings<T: FromStr + Clone + Display>(name: &str, default: &[T]) -> Vec<T> {
    let name = format!("ZEN_LEAD_BENCH_{name}");
    let values = match env::var(&name) {
        Ok(text) if !text.is_empty() => {
            let word = |w: &str| w.parse().unwrap_or_else(|_| panic!("{name}: {w:?}"));
            text.split(',').map(word).collect()
        }
        _ => default.to_vec(),
    };
    let words: Vec<String> = values.iter().map(ToString::to_string).collect();
    results::used(&name, &words.join(","));
    values
}

/// Prints a table at once, so that an interrupted run does not lose its measurements, and keeps it for the
/// file of the run.
pub fn table(title: &str, head: &[&str], rows: &[Vec<String>]) {
    let (time, load) = results::keep(title, head, rows);
    let load: Vec<String> = load.iter().map(ToString::to_string).collect();
    println!("\n## {title}\n   {time}, load average {}\n", load.join(" "));
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(c, w)| {
            let blanks = w.saturating_sub(c.chars().count());
            format!("{c}{}", " ".repeat(blanks))
        });
        println!("| {} |", padded.collect::<Vec<_>>().join(" | "));
    };
    line(&head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>());
    let rule: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
    println!("|-{}-|", rule.join("-|-"));
    for row in rows {
        line(row);
    }
    println!();
}

/// A number with this many digits behind the point.
pub fn n(value: f64, digits: usize) -> String {
    format!("{value:.digits$}")
}

/// A ratio of two numbers, as text.
pub fn ratio(value: f64, to: f64) -> String {
    n(value / to, 2)
}

/// A count as a number to calculate with.
#[allow(clippy::cast_precision_loss)]
pub fn count(number: usize) -> f64 {
    number as f64
}

/// Cells of anything that can be shown.
pub fn row(cells: &[&dyn Display]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}
