"""A small line chart as SVG, both axes from zero, so that what is linear looks linear. Needs no library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 260, 64, 44, 34
INK, GRID, LINE, IDEAL = "#24292f", "#d8dee4", "#0969da", "#8c959f"


def line_chart(
    title: str, unit: str, points: Sequence[tuple[float, float]], x_label: str, *, ideal: bool = False
) -> str:
    """One panel. `ideal`: also the straight line from zero through the first point."""
    most_x, most_y = max(x for x, _ in points), 1.15 * max(y for _, y in points)

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / most_x * (WIDTH - LEFT - 18), HEIGHT - BOTTOM - y / most_y * (HEIGHT - BOTTOM - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="11" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="13" font-weight="bold">{escape(title)}</text>',
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = share * most_y
        (x0, y), (x1, _) = at(0, value), at(most_x, value)
        parts.append(f'<line x1="{x0:.1f}" y1="{y:.1f}" x2="{x1:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,.0f}</text>')
    if ideal:
        (x0, y0), (x1, y1) = at(0, 0), at(most_x, min(most_y, points[0][1] / points[0][0] * most_x))
        parts.append(
            f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{IDEAL}" stroke-dasharray="4 4" fill="none"/>'
        )
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(*point) for point in points))
    parts.append(f'<path d="M{path}" stroke="{LINE}" stroke-width="2" fill="none"/>')
    for x, y in points:
        cx, cy = at(x, y)
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3.5" fill="{LINE}"/>')
        parts.append(f'<text x="{cx:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_short(x)}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text x="{LEFT - 6}" y="{TOP - 4}" text-anchor="end">{escape(unit)}</text></svg>')
    return "\n".join(parts)


def side_by_side(charts: Sequence[str]) -> str:
    """Several panels as one SVG."""
    inner = "\n".join(chart.replace("<svg ", f'<svg x="{i * WIDTH}" ', 1) for i, chart in enumerate(charts))
    total = len(charts) * WIDTH
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {HEIGHT}" width="{total}" height="{HEIGHT}">\n'
        f"{inner}\n</svg>\n"
    )


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
