"""Tables of docs/offline_benchmark.md and its details: results of `benchmarks.offline` and `benchmarks.ablations`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.ablations import KEEP, PUBLISHED, variants
from benchmarks.common import RESULTS
from benchmarks.key_spaces import CHOSEN, PAPER
from benchmarks.log_mass import BIASED

from vlm_pruner.evaluation import BenchResults, Bootstrap
from vlm_pruner.evaluation.compare import difference_table, discrimination, frame, retention_table
from vlm_pruner.evaluation.plots import leaders, plot_curves
from vlm_pruner.evaluation.table import left_out_lines, method_table, percent, table, type_table
from vlm_pruner.methods import registry

__all__ = ["PRESET", "SOURCES", "draw"]

PRESET = "vlm-pruner-plus"
BUDGETS = (192, 128, 64, 32)
DEFAULTS = {"pivots": "4", "threshold": "0.8", "token_batch": "16", "channels": "256"}


@cache
def load(name: str) -> tuple[BenchResults, Bootstrap]:
    """A result file and its resamples.

    Raises:
        FileNotFoundError: the benchmark was not run.
    """
    results = BenchResults.load(RESULTS / f"{name}.json")
    return results, results.bootstrap()


def timing() -> Any:
    """Milliseconds by `label@budget`."""
    return json.loads((RESULTS / "offline_timing.json").read_text())["methods"]


def at(budget: int) -> str:
    """All methods at one nominal budget."""
    results, bootstrap = load("offline")
    return method_table(results, budget, bootstrap, timing())


def at_equal_cost() -> str:
    """All methods at the layer-averaged cost of VLM-Pruner's 64 tokens, and those that cannot come down to it."""
    results, bootstrap = load("offline_equal")
    left_out = "\n".join(left_out_lines(results.left_out))
    return f"{method_table(results, KEEP, bootstrap, {})}\n\n{left_out}".strip()


def summary() -> str:
    """Retention of every method at every budget."""
    results, bootstrap = load("offline")
    return retention_table(results, BUDGETS, bootstrap)


def types() -> str:
    """Accuracy per question type at 64 tokens."""
    results, bootstrap = load("offline")
    return type_table(results, bootstrap, KEEP)


def told_apart() -> str:
    """Both ends of the scale, and the best against the random choice."""
    results, bootstrap = load("offline")
    return f"{frame(results, bootstrap)} {discrimination(results, KEEP, bootstrap)}"


def against(name: str) -> str:
    """One method against all others, at equal tokens and at equal cost."""
    (results, bootstrap), (equal, again) = load("offline"), load("offline_equal")
    nominal = difference_table(results, name, BUDGETS, bootstrap)
    return f"{nominal}\n\nAt equal cost:\n\n{difference_table(equal, name, [KEEP], again)}"


def preset() -> str:
    """The preset against all others."""
    if PRESET not in registry():
        return "*No preset of our own is registered yet.*"
    return against(PRESET)


def split() -> str:
    """What was asked of which model."""
    results, _ = load("offline")
    of = f"{len(results.types)} questions of the {results.split['name']} split of {results.split['version']}"
    return f"{of}: the first {of_each_type(results)}."


def of_each_type(results: BenchResults) -> str:
    """How many questions of each type were asked, and of which weights."""
    model, asked = results.model, results.split
    return (
        f"{asked['per_type']} of each of {len(set(results.types))} types (fingerprint `{asked['fingerprint']}`), on "
        f"weights `{model['weights']}` in {model['dtype']}"
    )


def ablations() -> str:
    """Figure 4 of the paper beside the same settings here."""
    results, bootstrap = load("ablations")
    full, ours = results.row("none").correct, results.row("pivots=4", KEEP)
    default = PUBLISHED["pivots"]["4"]
    lines = []
    for label, (place, _) in variants(results_hidden(results)).items():
        curve, value = place.split()
        published, row = PUBLISHED[curve][value], results.row(label, KEEP)
        change = None if DEFAULTS.get(curve) == value else results.difference(row, ours, bootstrap)
        lines.append([
            label, f"{published:.2f}", f"{published - default:+.2f}",
            percent(bootstrap.retention(row.correct, full)), percent(change, sign=True, bold=True),
            f"{100 * (row.mean('evidence_kept') or 0):.1f}",
        ])  # fmt: skip
    head = ["setting", "paper %", "against its default", "here %", "against the default here", "evidence kept here %"]
    return table(head, lines)


def results_hidden(results: BenchResults) -> int:
    """Hidden size, read back from the run that uses all channels."""
    return max(int(row.cells[0].params.get("channels", 0)) for row in results.rows() if row.label != "none")


def key_spaces(name: str) -> str:
    """VLM-Pruner's pivots in several spaces, beside the paper's, at equal counts of kept tokens."""
    results, bootstrap = load(name)
    full, asked = results.row("none").correct, results.split
    lines = []
    for row in results.rows():
        if row.label == "none":
            continue
        paper = results.row(PAPER, row.budget)
        change = None if row.label == PAPER else results.difference(row, paper, bootstrap)
        lines.append([
            str(row.budget), f"**{row.label}**" if row.label == CHOSEN else row.label,
            percent(bootstrap.retention(row.correct, full)), percent(change, sign=True, bold=True),
            f"{100 * (row.mean('evidence_kept') or 0):.1f}", f"{row.mean('layer_average'):.0f}",
        ])  # fmt: skip
    lines.sort(key=lambda line: -int(line[0]))
    head = ["kept", "pivots in", "retention %", "against the paper's", "evidence kept %", "per layer"]
    asked_of = f"{len(results.types)} questions of the {asked['name']} split"
    return f"{table(head, lines)}\n\n*{asked_of}: `{KEY_SPACES}`*"


def log_mass() -> str:
    """Merging methods as they are, and with log m on the logits of merged tokens."""
    results, bootstrap = load("log_mass")
    full, asked, lines = results.row("none").correct, results.split, []
    for row in results.rows():
        if row.label == "none" or row.label.endswith(BIASED):
            continue
        biased = results.row(row.label + BIASED, row.budget)
        lines.append([
            f"`{row.label}`", str(row.budget), percent(bootstrap.retention(row.correct, full)),
            percent(bootstrap.retention(biased.correct, full)),
            percent(bootstrap.retention_difference(biased.correct, row.correct, full), sign=True, bold=True),
        ])  # fmt: skip
    head = ["method", "kept", "retention %", "with log m %", "change"]
    return f"{table(head, lines)}\n\n*{len(results.types)} questions of the {asked['name']} split: `{LOG_MASS}`*"


def draw(path: Path) -> Path:
    """The curves of the leading methods."""
    results, bootstrap = load("offline")
    own = [PRESET] if PRESET in registry() else []
    return plot_curves(results, path, [*own, *(n for n in leaders(results, bootstrap) if n not in own)])


def where_run(make: Callable[[], str], command: str) -> Callable[[], str]:
    """`make`, or the command to run where its results are not there yet."""

    def source() -> str:
        try:
            return make()
        except FileNotFoundError:
            return f"*Not measured yet: `{command}`.*"

    return source


def _at(budget: int) -> Callable[[], str]:
    return lambda: at(budget)


OFFLINE, ABLATIONS = "python -m benchmarks.offline", "python -m benchmarks.ablations"
LOG_MASS = "python -m benchmarks.log_mass"
KEY_SPACES = "python -m benchmarks.key_spaces"
SOURCES: dict[str, Callable[[], str]] = {
    **{f"offline-{budget}": where_run(_at(budget), OFFLINE) for budget in BUDGETS},
    "offline-split": where_run(split, OFFLINE),
    "offline-equal": where_run(at_equal_cost, OFFLINE),
    "offline-summary": where_run(summary, OFFLINE),
    "offline-types": where_run(types, OFFLINE),
    "offline-told-apart": where_run(told_apart, OFFLINE),
    "offline-vlm-pruner": where_run(lambda: against("vlm-pruner"), OFFLINE),
    "offline-preset": where_run(preset, OFFLINE),
    "ablations": where_run(ablations, ABLATIONS),
    "log-mass": where_run(log_mass, LOG_MASS),
    "key-spaces": where_run(lambda: key_spaces("key_spaces"), KEY_SPACES),
    "key-spaces-test": where_run(lambda: key_spaces("key_spaces_test"), KEY_SPACES),
}
"""Name of a table -> its source."""

if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "images" / "offline.png")
