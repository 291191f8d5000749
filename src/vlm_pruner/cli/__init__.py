"""The command line: `vlm-pruner`. A command is one module with one function, listed here."""

from vlm_pruner.cli.app import build, main
from vlm_pruner.cli.ask import ask
from vlm_pruner.cli.batch import batch
from vlm_pruner.cli.bench import bench
from vlm_pruner.cli.check import check
from vlm_pruner.cli.demo import demo
from vlm_pruner.cli.doctor import doctor
from vlm_pruner.cli.evaluate import eval
from vlm_pruner.cli.explain import explain
from vlm_pruner.cli.listing import methods, models
from vlm_pruner.cli.profile import profile
from vlm_pruner.cli.report import report
from vlm_pruner.cli.serve import serve
from vlm_pruner.cli.tune import tune

COMMANDS = (ask, report, demo, serve, batch, bench, eval, tune, profile, check, doctor, explain, methods, models)
"""Every command; its function's name is the command's name, its docstring the help."""

app = build(COMMANDS)

__all__ = ["COMMANDS", "app", "main"]
