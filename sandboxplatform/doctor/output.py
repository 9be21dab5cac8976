"""The results for people, a line a check, and for programs, one JSON object."""

from __future__ import annotations

from collections.abc import Sequence

from sandboxplatform.doctor.findings import Result, Status

INDENT = " " * 6


def as_text(result: Result, *, width: int) -> str:
    """Return a check's line, and what to change below it; width is that of the longest name."""
    label = "FAIL" if result.status is Status.FAIL else str(result.status)
    lines = [f"{label:<4}  {result.name:<{width}}  {result.found}"]
    lines += [INDENT + line for fix in result.fixes for line in fix.strip().splitlines()]
    return "\n".join(line.rstrip() for line in lines)


def as_json(results: Sequence[Result]) -> dict[str, object]:
    """Return everything as JSON types."""
    return {
        "ok": is_well(results),
        "checks": [
            {
                "name": each.name,
                "status": str(each.status),
                "found": each.found,
                "fix": " ".join(each.fixes),
                "ms": round(each.ms, 1),
            }
            for each in results
        ],
    }


def is_well(results: Sequence[Result]) -> bool:
    """Did no check fail? Warnings are allowed."""
    return not any(each.status is Status.FAIL for each in results)
