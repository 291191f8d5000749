"""Deliberate breaks of the page, as those of the engine in `benchmarks/mutants.py`."""

from __future__ import annotations

from benchmarks.mutants import Mutant

__all__ = ["PAGE"]

PAGE = (
    Mutant("a late end takes the flag of the next question along", "web/jobs.py",
           "if self._flags.get(visitor) is flag:", "if visitor in self._flags:", "web/test_jobs.py"),
    Mutant("closing does not wait for answers under way", "web/jobs.py", "self._running.add(flag)", "pass",
           "web/test_jobs.py"),
    Mutant("the stop button does not reach the model", "web/desk.py", "stop=flag)", "stop=None)",
           "web/test_desk.py -k stop"),
    Mutant("a comparison that fails stays under way", "web/desk.py", "self.jobs.end(visitor, flag)", "pass",
           "web/test_desk.py -k no_sense"),
    Mutant("a visitor is told the insides of the server", "web/desk.py", "if isinstance(error, VlmPrunerError):",
           "if isinstance(error, Exception):", "web/test_desk.py -k our_errors"),
    Mutant("words of a model are taken for HTML", "web/board.py", 'escape(column.text) or "(nothing)"',
           'column.text or "(nothing)"', "web/test_board.py -k words"),
    Mutant("the answer from all tokens is compared with itself", "web/board.py",
           "if run is not full and full is not None:", "if full is not None:", "web/test_board.py"),
    Mutant("every answer counts as that of all tokens", "web/board.py", "c.run.text == full.text for c in tried",
           "c.run is not None for c in tried", "web/test_board.py"),
    Mutant("a bar is a share of its own number", "web/board.py", "_fact(name, get(run), get(full), digits)",
           "_fact(name, get(run), get(run), digits)", "web/test_board.py"),
    Mutant("a method that needs another layer is not offered", "web/controls.py", "(None, loaded.layers // 2)",
           "(None,)", "web/test_controls.py"),
    Mutant("auto prunes before the language model", "web/controls.py", "None if layer in (AUTO, None)",
           "0 if layer in (AUTO, None)", "web/test_controls.py"),
)  # fmt: skip
