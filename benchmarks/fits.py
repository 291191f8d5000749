"""Which methods run in which family, and why the others do not: every method on a tiny random model of every family.

What a family gives a method depends on its modules, not on its weights or its size.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from benchmarks.common import Report, arguments, prepare

from vlm_pruner.asking.fitting import fits

__all__ = ["reasons", "tried"]


def tried() -> Iterator[str]:
    """The families by the names of `tests.support.families`: one of each that the installed transformers has, with
    pictures."""
    import pytest
    from tests.support.families import FAMILIES

    for name, family in FAMILIES.items():
        try:
            family.config()
        except pytest.skip.Exception:
            continue
        if not name.endswith(("-video", "-shared")):
            yield name


def reasons(name: str) -> dict[str, str]:
    """Every method with the reason why the family cannot run it, empty where it can."""
    from tests.support.families import tiny

    family, model = tiny(name)
    inputs = family.inputs([family.prompt(1, 1)], model.dtype)
    model.generation_config.suppress_tokens = [90, 91, 92, 93]  # a random model would write placeholders
    return fits(model, inputs)


def main(options: argparse.Namespace) -> None:
    """One row a family: the methods that do not run, with their reasons."""
    device = prepare(options)
    report = Report("fits", options, device)
    for name in ["llava"] if options.quick else tried():
        found = reasons(name)
        left_out: dict[str, Any] = {method: why for method, why in found.items() if why}
        report.check(not [why for why in left_out.values() if "could not answer" in why], f"{name}: {left_out}")
        report.row(name, runs=len(found) - len(left_out), left_out=left_out)
    report.finish()


if __name__ == "__main__":
    main(arguments((__doc__ or "").splitlines()[0]).parse_args())
