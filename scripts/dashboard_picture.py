#!/usr/bin/env python3
"""Draws the main panels of deploy/chart/files/zen-lead-dashboard.json from recorded data.

    scripts/dashboard_picture.py RECORDING PICTURE.svg

RECORDING is what tests/cluster/monitoring.rs wrote: the answers of a real Prometheus to the queries
of the dashboard (make monitoring-picture does both). It is no screenshot of Grafana; titles, queries,
legends, units and colours are those of the dashboard. Standard library only.
"""

import json
import math
import re
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "deploy/chart/files/zen-lead-dashboard.json"

# The panels shown, by title, in rows of 12 columns: (title, columns).
ROWS = [
    (78, [("Leader Services", 2), ("Without a leader", 2), ("Replicas", 2), ("Switches", 2),
          ("Failover, p99", 2), ("Certificate ends in", 2)]),
    (210, [("Routed", 4), ("Switches by reason", 4), ("Failover latency", 4)]),
    (210, [("Reconciles", 4), ("Retries", 4), ("Watches", 4)]),
    (210, [("Admission reviews", 4), ("Violations", 4), ("Use of the bounds", 4)]),
]
WIDTH, GAP = 1200, 8
# Its own background, so that it looks the same on a light and on a dark page.
PAGE, PANEL, EDGE, GRID, TEXT, FAINT = "#111217", "#181b1f", "#2c3037", "#2a2e35", "#d8d9da", "#9fa3a9"
PALETTE = ["#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#b877d9", "#f2495c", "#37a2eb", "#ffa6b0",
           "#96d98d", "#8ab8ff", "#c0d8ff", "#e0b400"]
NAMED = {"green": "#73bf69", "red": "#f2495c", "orange": "#ff9830", "text": TEXT}


def shown(value, unit):
    """A number in the dashboard's unit, as short as it can be read."""
    if unit in ("s", "dtdurations"):
        for size, name in [(86400, "d"), (3600, "h"), (60, "min")]:
            if value >= size:
                return f"{value / size:.3g} {name}"
        if value >= 1 or value == 0:
            return f"{value:.3g} s"
        return f"{value * 1000:.3g} ms" if value >= 0.001 else f"{value * 1e6:.3g} µs"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    return f"{value:.3g}" + {"ops": "/s", "reqps": "/s", "d": " d"}.get(unit, "")


def legend(target, metric):
    text = target["legendFormat"]
    if text == "__auto":
        return target["expr"]
    return re.sub(r"{{\s*(\w+)\s*}}", lambda m: metric.get(m[1], ""), text).strip(" :")


class Series:
    """One curve: its name, and its points as (seconds, value)."""

    def __init__(self, name, points):
        self.name = name
        self.points = [(t, float(v)) for t, v in points]
        self.points = [(t, v) for t, v in self.points if math.isfinite(v)]


def series_of(panel, found):
    curves = []
    for target in panel["targets"]:
        for one in found.get((panel["id"], target["refId"]), []):
            points = one["values"] if "values" in one else [one["value"]]
            curves.append(Series(legend(target, one["metric"]), points))
    # The zero of "or vector(0)", which has no labels, is there only until there is something to count.
    if any(c.name for c in curves):
        curves = [c for c in curves if c.name]
    # A namespace that all of them share is left out.
    heads = {c.name.split("/")[0] for c in curves if "/" in c.name}
    if len(heads) == 1 and all("/" in c.name for c in curves):
        for curve in curves:
            curve.name = curve.name.split("/", 1)[1]
    return curves


class Canvas:
    def __init__(self):
        self.parts = []

    def add(self, text):
        self.parts.append(text)

    def text(self, x, y, text, size=11, colour=FAINT, anchor="start", kind=""):
        kind = f' class="{kind}"' if kind else ""
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" '
                 f'text-anchor="{anchor}"{kind}>{escape(text, quote=False)}</text>')

    def box(self, x, y, w, h, fill, more=""):
        self.add(f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{fill}"{more}/>')


def clock(seconds):
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def nice_top(top):
    """The next round number, and into how many steps it is cut."""
    if top <= 0:
        return 1.0, 2
    size = 10 ** math.floor(math.log10(top))
    for factor, steps in [(1, 4), (1.5, 3), (2, 4), (3, 3), (4, 4), (5, 5), (6, 3), (8, 4), (10, 5)]:
        if top <= factor * size * 1.0001:
            return factor * size, steps
    return 10 * size, 5


def draw_legend(canvas, x, y, width, names):
    """Names with their colours, at most two lines; returns nothing that is cut silently."""
    column, line, left = x, y, list(names)
    while left:
        name, colour = left[0]
        need = 22 + len(name) * 5.6
        if column + need > x + width and column > x:
            line, column = line + 14, x
            if line > y + 14:
                canvas.text(x + width, line - 14, f"+ {len(left)}", 10, FAINT, "end")
                return
        canvas.box(column, line - 6, 10, 3, colour)
        canvas.text(column + 14, line - 1, name, 10, TEXT)
        column += need
        left.pop(0)


def draw_stat(canvas, panel, curves, area):
    x, y, w, h = area
    defaults = panel["fieldConfig"]["defaults"]
    if not curves or not curves[0].points:
        canvas.text(x + w / 2, y + h - 20, "no data", 16, FAINT, "middle")
        return
    value = curves[0].points[-1][1]
    colour = TEXT
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = NAMED[step["color"]]
    canvas.text(x + w / 2, y + h - 16, shown(value, defaults["unit"]), 26, colour, "middle")


def frame(area, label_width):
    x, y, w, h = area
    return x + label_width, y + 30, w - label_width - 12, h - 86


def time_axis(canvas, plot, span):
    x, y, w, h = plot
    start, end = span
    for minute in range(0, int((end - start) // 60) + 1):
        at = x + w * (minute * 60) / (end - start)
        canvas.add(f'<line x1="{at:.1f}" y1="{y:.1f}" x2="{at:.1f}" y2="{y + h:.1f}" stroke="{GRID}"/>')
        canvas.text(at, y + h + 14, clock(minute * 60), 10, FAINT, "middle")


def draw_time(canvas, panel, curves, area, span):
    start, end = span
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    bars = custom["drawStyle"] == "bars"
    stacked = custom["stacking"]["mode"] == "normal"
    plot = x, y, w, h = frame(area, 52)
    sums = {}
    for curve in curves:
        for t, v in curve.points:
            sums[t] = sums.get(t, 0) + v if stacked else max(sums.get(t, 0), v)
    top, steps = nice_top(max(sums.values(), default=0))
    time_axis(canvas, plot, span)
    for step in range(steps + 1):
        at = y + h - h * step / steps
        canvas.add(f'<line x1="{x}" y1="{at:.1f}" x2="{x + w:.1f}" y2="{at:.1f}" stroke="{GRID}"/>')
        canvas.text(x - 6, at + 3.5, shown(top * step / steps, defaults["unit"]), 10, FAINT, "end")
    below = {}
    for number, curve in enumerate(curves):
        colour = PALETTE[number % len(PALETTE)]
        places = []
        for t, v in curve.points:
            base = below.get(t, 0) if stacked else 0
            below[t] = base + v
            px = x + w * (t - start) / (end - start)
            places.append((t, px, y + h - h * base / top, y + h - h * (base + v) / top))
        if bars:
            thick = w * STEP / (end - start)
            path = "".join(f"M{px:.1f} {low:.1f}V{high:.1f}" for _, px, low, high in places if low - high > 0.3)
            if path:
                canvas.add(f'<path d="{path}" stroke="{colour}" stroke-width="{thick:.1f}" opacity="0.85"/>')
            continue
        for piece in pieces(places):
            line = "L".join(f"{px:.1f} {high:.1f}" for _, px, _, high in piece)
            if stacked or custom["fillOpacity"]:
                back = "L".join(f"{px:.1f} {low:.1f}" for _, px, low, _ in reversed(piece))
                canvas.add(f'<path d="M{line}L{back}Z" fill="{colour}" opacity="0.12"/>')
            canvas.add(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="1.5" '
                       'stroke-linejoin="round"/>')
            if len(piece) == 1:
                canvas.add(f'<circle cx="{piece[0][1]:.1f}" cy="{piece[0][3]:.1f}" r="2" fill="{colour}"/>')
    names = [(c.name, PALETTE[i % len(PALETTE)]) for i, c in enumerate(curves)]
    draw_legend(canvas, area[0] + 10, area[1] + area[3] - 21, area[2] - 20, names)


def pieces(places):
    """Runs of points without a gap: where there was no number, no line is drawn."""
    runs, before = [], None
    for place in places:
        if before is None or place[0] - before > STEP * 1.5:
            runs.append([])
        runs[-1].append(place)
        before = place[0]
    return runs


def draw_states(canvas, panel, curves, area, span):
    start, end = span
    options = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    plot = x, y, w, h = frame(area, 92)
    time_axis(canvas, plot, span)
    row = h / max(len(curves), 1)
    for number, curve in enumerate(sorted(curves, key=lambda c: c.name)):
        top = y + row * number
        canvas.text(x - 6, top + row / 2 + 3.5, curve.name, 10, TEXT, "end")
        begun = None
        for at, (t, v) in enumerate(curve.points):
            state = f"{v:.0f}"
            if begun is None:
                begun = (t, state)
            last = at + 1 == len(curve.points)
            if state != begun[1] or last:
                left = x + w * (begun[0] - start) / (end - start)
                right = x + w * ((min(t + STEP, end) if last else t) - start) / (end - start)
                canvas.box(left, top + 1.5, max(right - left, 1), row - 3, NAMED[options[begun[1]]["color"]],
                           ' opacity="0.8"')
                begun = (t, state)
    names = [(o["text"], NAMED[o["color"]]) for o in options.values()]
    draw_legend(canvas, area[0] + 10, area[1] + area[3] - 21, area[2] - 20, names)


def draw(recording, dashboard):
    found = {(q["panel"], q["letter"]): q["series"] for q in recording["queries"]}
    panels = {p["title"]: p for p in dashboard["panels"] if p["type"] != "row"}
    span = recording["start"], recording["end"]
    canvas, y = Canvas(), GAP
    for height, cells in ROWS:
        x, unit = GAP, (WIDTH - GAP) / 12
        for title, columns in cells:
            panel = panels[title]
            area = (x, y, unit * columns - GAP, height)
            canvas.box(*area, PANEL, f' rx="3" stroke="{EDGE}"')
            canvas.text(x + 10, y + 19, title, 12, TEXT, kind="title")
            curves = series_of(panel, found)
            if panel["type"] == "stat":
                draw_stat(canvas, panel, curves, area)
            elif panel["type"] == "state-timeline":
                draw_states(canvas, panel, curves, area, span)
            else:
                draw_time(canvas, panel, curves, area, span)
            x += unit * columns
        y += height + GAP
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" '
            'font-family="Inter, Helvetica Neue, Arial, sans-serif" role="img">\n'
            "<title>Main panels of zen-lead's dashboard, drawn from recorded data</title>\n")
    return head + f'<rect width="{WIDTH}" height="{y}" fill="{PAGE}"/>\n' + "\n".join(canvas.parts) + "\n</svg>\n"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    data = json.loads(Path(sys.argv[1]).read_text())
    STEP = data["step"]
    picture = draw(data, json.loads(DASHBOARD.read_text()))
    Path(sys.argv[2]).write_text(picture)
    print(f"{sys.argv[2]}: {len(picture)} bytes, from {data['end'] - data['start']:.0f} s of data")
