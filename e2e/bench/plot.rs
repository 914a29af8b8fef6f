//! Pictures of the results, as SVG. `results` says what is drawn; this says what it looks like.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::results::{Figure, Shape};

const WIDTH: u32 = 900;
/// Of a picture of lines.
const HEIGHT: u32 = 480;
/// Of a bar, and of the name above a group of bars.
const BAR: u32 = 24;
/// Of title, axis and margins.
const EDGES: u32 = 110;
const FONT: &str = "sans-serif";
/// For lines and parts of bars, in this order.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x60, 0xc4),
    RGBColor(0xe0, 0x8a, 0x1e),
    RGBColor(0x2e, 0x8b, 0x57),
    RGBColor(0xb0, 0x3a, 0x5b),
    RGBColor(0x7a, 0x5a, 0xa8),
    RGBColor(0x55, 0x55, 0x55),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The text of an SVG file.
pub fn svg(figure: &Figure) -> Result<String, String> {
    let mut text = String::new();
    let height = match &figure.shape {
        Shape::Bars { parts, values, .. } => {
            let bars = values.len() * (parts.len() + 1);
            EDGES + BAR * u32::try_from(bars).map_err(|e| e.to_string())?
        }
        Shape::Lines { .. } => HEIGHT,
    };
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        // Its own background, so that it looks the same on a light and on a dark page.
        area.fill(&WHITE).map_err(|e| e.to_string())?;
        let drawn = match &figure.shape {
            Shape::Bars { unit, parts, values } => bars(&area, &figure.title, unit, parts, values),
            Shape::Lines { across, up, lines } => graph(&area, &figure.title, [across, up], lines),
        };
        drawn.and_then(|()| area.present().map_err(|e| e.to_string()))?;
    }
    Ok(text)
}

/// Lying bars in groups, with each group's name above it and each bar's value behind it.
#[allow(clippy::cast_precision_loss)]
fn bars(
    area: &Area<'_>,
    title: &str,
    unit: &str,
    parts: &[String],
    values: &[(String, Vec<f64>)],
) -> Result<(), String> {
    let group = (parts.len() + 1) as f64;
    let most = top(values.iter().flat_map(|(_, all)| all.iter().copied()));
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 20))
        .margin(12)
        .margin_right(24)
        .x_label_area_size(40)
        // From top to bottom, and with room for the words behind the longest bar.
        .build_cartesian_2d(0.0..most * 1.25, group * values.len() as f64..0.0)
        .map_err(|e| e.to_string())?;
    let mesh = chart
        .configure_mesh()
        .max_light_lines(0)
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc(unit)
        .x_label_formatter(&|value| value.to_string())
        .label_style((FONT, 15))
        .draw();
    mesh.map_err(|e| e.to_string())?;
    let word = |text: String, at: (f64, f64)| Text::new(text, at, (FONT, 16));
    for (number, (name, all)) in values.iter().enumerate() {
        let above = group * number as f64;
        chart
            .draw_series([word(name.clone(), (most * 0.005, above + 0.25))])
            .map_err(|e| e.to_string())?;
        for (place, (part, value)) in parts.iter().zip(all).enumerate() {
            let y = above + 1.0 + place as f64;
            let colour = COLOURS[place % COLOURS.len()].filled();
            let bar = Rectangle::new([(0.0, y + 0.1), (value.max(0.0), y + 0.9)], colour);
            chart.draw_series([bar]).map_err(|e| e.to_string())?;
            let end = (value.max(0.0) + most * 0.01, y + 0.2);
            chart
                .draw_series([word(format!("{part} {value:.1}"), end)])
                .map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

fn graph(
    area: &Area<'_>,
    title: &str,
    [across, up]: [&str; 2],
    lines: &[(String, Vec<(f64, f64)>)],
) -> Result<(), String> {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let (right, highest) = (top(points().map(|p| p.0)), top(points().map(|p| p.1)));
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 20))
        .margin(12)
        .margin_right(24)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..right, 0.0..highest * 1.05)
        .map_err(|e| e.to_string())?;
    let mesh = chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc(across)
        .x_label_formatter(&|value| value.to_string())
        .y_label_formatter(&|value| value.to_string())
        .y_desc(up)
        .label_style((FONT, 15))
        .draw();
    mesh.map_err(|e| e.to_string())?;
    for (number, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        let drawn = chart.draw_series(line).map_err(|e| e.to_string())?;
        drawn.label(name).legend(move |(x, y)| {
            PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
        });
    }
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8));
    legend.border_style(BLACK.mix(0.3)).label_font((FONT, 16)).draw().map_err(|e| e.to_string())
}

/// The largest value, or 1 if there is none above zero.
fn top(values: impl Iterator<Item = f64>) -> f64 {
    let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    if most > 0.0 { most } else { 1.0 }
}
