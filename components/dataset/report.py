"""The report of the checks: as JSON, as a table for people, and as a page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from components.dataset.findings import CHECKS, Finding
from components.runtime.page import page, paragraph, table

_SHOWN = 5


def as_json(findings: Sequence[Finding], left_out: Mapping[str, str], cut: int) -> dict[str, Any]:
    """The content of `checks.json`.

    Args:
        findings: what the checks found.
        left_out: episodes that are not used, and why.
        cut: frames that were cut from other episodes.
    """
    return {
        "passed": not findings,
        "checks": {
            name: {"expects": text, "problems": len(of), "first": [f.message for f in of[:_SHOWN]]}
            for name, text in CHECKS.items()
            for of in [[f for f in findings if f.check == name]]
        },
        "problems": [asdict(f) for f in findings],
        "left_out": dict(left_out),
        "cut_frames": cut,
    }


def as_text(findings: Sequence[Finding]) -> str:
    """A line per check that found something: how many, and the first offenders below."""
    lines = []
    for name in CHECKS:
        if of := [f for f in findings if f.check == name]:
            episodes = len({episode for f in of for episode in f.episodes})
            lines.append(f"  {name}: {len(of)} problems, {episodes} episodes")
            lines += [f"    {f.check}: {f.message}" for f in of[:_SHOWN]]
            lines += [f"    and {len(of) - _SHOWN} more"] if len(of) > _SHOWN else []
    return "\n".join(lines)


def as_page(report: Mapping[str, Any], intro: str, tasks: Mapping[str, Mapping[str, int]]) -> str:
    """A self-contained page.

    Args:
        report: see `as_json`.
        intro: what was checked.
        tasks: episodes and frames by task, where they are known.
    """
    checks = [
        (name, one["expects"], one["problems"], "; ".join(one["first"]))
        for name, one in report["checks"].items()
    ]
    parts = [paragraph(intro), table(("check", "expects", "problems", "first"), checks)]
    if report["left_out"]:
        parts += ["<h2>Left out</h2>", table(("episode", "why"), sorted(report["left_out"].items()))]
    if report["cut_frames"]:
        parts.append(paragraph(f"{report['cut_frames']:,} idle frames are cut."))
    if tasks:
        rows = [(name, f"{one['episodes']:,}", f"{one['frames']:,}") for name, one in tasks.items()]
        parts += ["<h2>Tasks</h2>", table(("task", "episodes", "frames"), rows)]
    return page("Demonstrations", *parts)
