"""Tables of the pages that are made of what the package says of itself: commands, and methods by family."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS

__all__ = ["SOURCES", "commands", "fits"]


def commands() -> str:
    """Every command of the command line with its arguments and options, as `--help` has them."""
    import typer
    from benchmarks.table_sources import markdown

    from vlm_pruner.cli import app

    group: Any = typer.main.get_command(app)
    parts = []
    for name, command in group.commands.items():
        rows = []
        for parameter in command.params:
            if "--help" in parameter.opts:
                continue
            default = "" if parameter.required or parameter.default in (None, "") else f"`{parameter.default}`"
            if isinstance(getattr(parameter, "show_default", None), str):  # one that depends on other things
                default = parameter.show_default
            if parameter.param_type_name == "argument":
                label = f"`{parameter.name.upper()}`"
            else:
                label = ", ".join(f"`{option}`" for option in sorted(parameter.opts, key=len))
                default = "" if parameter.default is False else default
            rows.append([label, parameter.help or "", default])
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        usage = " ".join(p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments)
        parts.append(f"## `{f'vlm-pruner {name} {usage}'.strip()}`")
        parts.append((command.help or "").split("\n\n")[0])
        parts.append(markdown(["", "what it is", "default"], rows) if rows else "")
    return "\n\n".join(part for part in parts if part)


def fits(folder: Path = RESULTS) -> str:
    """Methods by family: a tick, or the number of the reason below the table; families that are alike share a row."""
    file = folder / "fits.json"
    if not file.exists():
        return "*Not tried yet: `python -m benchmarks.fits`.*"
    found = json.loads(file.read_text(encoding="utf-8"))
    rows = {row["name"]: {m: _plain(m, why) for m, why in row["left_out"].items()} for row in found["rows"]}
    methods = sorted({method for left_out in rows.values() for method in left_out})
    reasons = list(dict.fromkeys(why for left_out in rows.values() for why in left_out.values()))
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, left_out in rows.items():
        cells = [str(reasons.index(left_out[m]) + 1) if m in left_out else "✓" for m in methods]
        alike.setdefault(tuple(cells), []).append(f"`{name}`")
    head = "| family | " + " | ".join(f"`{method}`" for method in methods) + " |"
    lines = [head, "|" + " --- |" * (len(methods) + 1)]
    lines += [f"| {', '.join(names)} | {' | '.join(cells)} |" for cells, names in alike.items()]
    notes = [f"{number}. {why}" for number, why in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes, "", f"*`{found['command']}`*"])


def _plain(method: str, why: str) -> str:
    """A reason without the names of method and family, so that equal ones are equal."""
    return re.sub(r" of this \S+ model", "", re.sub(r"^([\w-]+ (?=needs|cannot)|\w+: (?=it is not known))", "", why))


def checks(folder: Path = RESULTS) -> str:
    """What was checked of every family, on which release and which weights: every file of `vlm-pruner check --json`.

    A file holds one check, or many as `rows`, then of random weights.
    """
    from benchmarks.table_sources import markdown

    from vlm_pruner.adapters import families

    rows, notes, commands = [], [], []
    for file in sorted((folder / "checks").glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        commands += [f"`{found['command']}`"] if "command" in found else []
        for one in found.get("rows", [found]):
            rows.append(_checked(one, notes))
    if not rows:
        return "*Not checked yet: `python -m benchmarks.checks`.*"
    head = ["family", "weights", "release", "runs with", "keep=1.0", "layer 0", "own layers", "batch", "kept"]
    named = {row[0].strip("`") for row in rows}
    missing = ", ".join(f"`{name}`" for name in families() if name not in named)
    parts = [
        markdown(head, sorted(rows)), "\n".join(f"{number}. {why}" for number, why in enumerate(notes, 1)),
        f"Not checked under their own name: {missing}." if missing else "", f"*{', '.join(commands)}*",
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def _checked(one: dict[str, Any], notes: list[str]) -> list[str]:
    """A row of the table of checks; what could not be run is a number of `notes`."""
    model = one["model"]
    name = one.get("name", one["family"])
    random = "random" if name == one["family"] else f"random, {name}"
    cells = []
    for check in one["checks"][:4]:
        if check["largest"] is None:
            notes += [check["note"]] if check["note"] not in notes else []
            cells.append(f"– [{notes.index(check['note']) + 1}]")
            continue
        allowed = f" of {check['allowed']:.1g}" if check["allowed"] else ""
        cells.append(f"{check['largest']:.1g}{allowed}")
    runs = ", ".join(filter(None, [one["attention"], one["dtype"], one.get("quantize"), one["device"].split(":")[0]]))
    weights = random if model is None else f"`{model}`" + (f" {one['revision']}" if one.get("revision") else "")
    kept = "yes" if one["kept"] else "**no**"
    return [f"`{one['family']}`", weights, one["versions"]["transformers"], runs, *cells, kept]


SOURCES: dict[str, Callable[[], str]] = {"commands": commands, "fits": fits, "checks": checks}
