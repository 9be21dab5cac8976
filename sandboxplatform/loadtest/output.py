"""A report for people (a table) and for programs (JSON), from the same data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sandboxplatform.loadtest.results import OURS, PERCENTILES, REFERENCE, Report, Row, Series
from sandboxplatform.loadtest.targets import number, targets


def as_json(report: Report) -> dict[str, object]:
    """Return the report as one object of JSON types; times are in milliseconds."""
    return {
        "machine": report.machine,
        "options": report.options,
        "interrupted": report.interrupted,
        "rows": [_row_as_json(report, row) for row in report.rows.values()],
        "memory": [
            {
                "name": each.name,
                "note": each.note,
                "megabytes": each.megabytes,
                "fit_in_free_memory": each.fits,
            }
            for each in report.memory.values()
        ],
        "targets": [
            {
                "promise": target.promise,
                "measured": target.measured,
                "limit": target.limit,
                "unit": target.unit,
                "at_least": target.at_least,
                "met": target.is_met,
            }
            for target in targets(report)
        ],
        "notes": report.notes,
    }


def _row_as_json(report: Report, row: Row) -> dict[str, object]:
    found: dict[str, object] = {"name": row.name, "note": row.note}
    found |= {side: _series_as_json(series) for side, series in row.sides.items()}
    if row.floor:
        found["floor"] = row.floor
        found["floor_p50_ms"] = _of_row(report, row.floor)
    if row.plain:
        found["plain"] = row.plain
        found["minus_plain_p50_ms"] = _minus_plain(report, row)
    found["ours_to_reference"] = _against_reference(row)
    return found


def _series_as_json(series: Series) -> dict[str, object]:
    return {
        "count": len(series.seconds),
        **{f"p{percent}_ms": series.milliseconds(percent) for percent in PERCENTILES},
        "per_second": series.rate,
        "per_minute": None if series.rate is None else series.rate * 60,
        "failures": dict(series.failures),
        "examples": series.examples,
    }


def _of_row(report: Report, name: str) -> float | None:
    return report.rows[name].milliseconds(50) if name in report.rows else None


def _minus_plain(report: Report, row: Row, side: str = OURS) -> float | None:
    plain = report.rows.get(row.plain)
    with_it, without = row.milliseconds(50, side), plain and plain.milliseconds(50, side)
    return None if with_it is None or without is None else with_it - without


def _against_reference(row: Row) -> float | None:
    """Return ours divided by the reference's: of rates where there are some, else of p50."""
    ours, theirs = row.rate(), row.rate(REFERENCE)
    if ours is None or theirs is None:
        ours, theirs = row.milliseconds(50), row.milliseconds(50, REFERENCE)
    return ours / theirs if ours is not None and theirs else None


def _number(value: float | None, suffix: str = "") -> str:
    return "" if value is None else number(value) + suffix


HEADINGS = ["", "count", "p50", "p95", "p99", "rate", "failed", "×floor"]
REFERENCE_HEADINGS = ["reference: p50", "p95", "rate", "failed", "ours/reference"]


def _rate(row: Row, series: Series) -> str:
    if series.rate is None:
        return ""
    return f"{number(series.rate * 60)}/min" if row.per == "minute" else f"{number(series.rate)}/s"


def _series_cells(row: Row, side: str) -> list[str]:
    series = row.sides.get(side)
    if series is None:
        return [""] * 6
    times = [_number(series.milliseconds(percent)) for percent in PERCENTILES]
    failed = str(series.failures.total())
    return [str(len(series.seconds)), *times, _rate(row, series), failed]


def _cells(report: Report, row: Row, *, has_reference: bool) -> list[str]:
    ours, floor = row.milliseconds(50), _of_row(report, row.floor)
    cells = [row.name, *_series_cells(row, OURS)]
    cells.append(_number(ours / floor, "×") if ours and floor else "")
    if has_reference:
        _, p50, p95, _, rate, failed = _series_cells(row, REFERENCE)
        cells += [p50, p95, rate, failed, _number(_against_reference(row), "×")]
    return cells


def _aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        first, *others = (
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        yield "  ".join([first, *others]).rstrip()


def _memory_lines(report: Report, *, has_reference: bool) -> Iterator[str]:
    sides = [OURS, *([REFERENCE] if has_reference else [])]
    headings = [heading for side in sides for heading in (side, "fit now")]
    table = [["Memory in MB", *headings, ""]]
    for each in report.memory.values():
        cells = [each.name]
        for side in sides:
            cells += [_number(each.megabytes.get(side)), str(each.fits.get(side, ""))]
        table.append([*cells, ""])
    first, *lines = _aligned(table)
    yield first
    for line, each in zip(lines, report.memory.values(), strict=True):
        yield f"{line}  {each.note}".rstrip()


def _row_notes(report: Report) -> Iterator[str]:
    for row in report.rows.values():
        if (more := _minus_plain(report, row)) is not None:
            sign = "−" if more < 0 else "+"
            yield f"  {row.name}: p50 {sign}{number(abs(more))} ms against {row.plain}"
        if row.note:
            yield f"  {row.name}: {row.note}"


def _failure_lines(report: Report) -> Iterator[str]:
    for row in report.rows.values():
        for side, series in row.sides.items():
            for kind, count in series.failures.items():
                example = series.examples.get(kind, "")
                who = "" if side == OURS else "reference: "
                yield f"  {who}{row.name}: {count} × {kind}{f': {example}' if example else ''}"


def as_text(report: Report) -> str:
    """Return the table and what follows it."""
    has_reference = any(REFERENCE in row.sides for row in report.rows.values())
    lines = []
    if report.rows:
        headings = [*HEADINGS, *(REFERENCE_HEADINGS if has_reference else [])]
        rows = [_cells(report, row, has_reference=has_reference) for row in report.rows.values()]
        lines += ["Times in ms; failed calls have none.", *_aligned([headings, *rows])]
        lines += _row_notes(report)
    if report.memory:
        lines += ["", *_memory_lines(report, has_reference=has_reference)]
    if failures := list(_failure_lines(report)):
        lines += ["", "Failures", *failures]
    lines += ["", "Targets", *(f"  {target}" for target in targets(report))]
    if report.notes:
        lines += ["", *report.notes]
    if report.interrupted:
        lines += ["", "Interrupted: what stands above is what had been measured by then."]
    return "\n".join(lines)
