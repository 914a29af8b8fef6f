//! Two binaries beside each other: what their tables say, number by number, with the ratio. Installing
//! them is not done here.

use serde_json::Value;

use super::measure::{n, ratio};
use super::results::Table;

/// The order in which the binaries are measured: what only grows with time is the same for both.
pub const PASSES: [&str; 4] = ["A", "B", "B", "A"];

/// A number of a table: title, row and column, each with a number where it repeats.
type Place = (String, String, String);

/// Head and rows of one table over the four passes of a measurement. Numbers that a pass lacks are NaN.
pub fn compare(passes: &[Vec<Table>; 4]) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let numbers = passes.each_ref().map(|tables| numbers(tables));
    let mut places: Vec<&Place> = Vec::new();
    for (place, _) in numbers.iter().flatten() {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let rows = places.into_iter().map(|place| {
        let value = |all: &[(Place, f64)]| {
            all.iter().find(|(p, _)| p == place).map_or(f64::NAN, |(_, value)| *value)
        };
        let [first_a, first_b, second_b, second_a] = numbers.each_ref().map(|all| value(all));
        let mut cells = vec![place.0.clone(), place.1.clone(), place.2.clone()];
        cells.extend([first_a, first_b, second_b, second_a].map(|value| n(value, 2)));
        cells.push(ratio(mean(first_b, second_b), mean(first_a, second_a)));
        cells
    });
    (vec!["table", "row", "column", "A", "B", "B again", "A again", "B / A"], rows.collect())
}

/// Of those that were measured.
fn mean(one: f64, other: f64) -> f64 {
    match (one.is_nan(), other.is_nan()) {
        (true, _) => other,
        (_, true) => one,
        _ => f64::midpoint(one, other),
    }
}

/// Every number of these tables. The first column and those after it up to the first number name the row.
fn numbers(tables: &[Table]) -> Vec<(Place, f64)> {
    let mut found = Vec::new();
    for table in tables {
        let title = short(&table.title);
        let mut names: Vec<String> = Vec::new();
        for row in &table.rows {
            let words = 1 + row.iter().skip(1).take_while(|cell| cell.is_string()).count();
            let name = row.iter().take(words).map(text).collect::<Vec<_>>().join(" ");
            let name = name.trim_end().to_owned();
            let before = names.iter().filter(|other| **other == name).count();
            names.push(name.clone());
            let name = if before == 0 { name } else { format!("{name} ({})", before + 1) };
            for (head, cell) in table.head.iter().zip(row).skip(words) {
                if let Some(value) = cell.as_f64() {
                    found.push(((title.clone(), name.clone(), head.clone()), value));
                }
            }
        }
    }
    found
}

fn text(cell: &Value) -> String {
    cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)
}

/// The words of a title before its details.
fn short(title: &str) -> String {
    title.split([':', ';']).next().unwrap_or_default().to_owned()
}
