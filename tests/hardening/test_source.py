"""No file that is read can run code: nothing in the package unpickles, evaluates or executes what it was given."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import vlm_pruner
from vlm_pruner import InputError
from vlm_pruner.asking import open_model
from vlm_pruner.models.embedded import embedded_folder

SRC = Path(vlm_pruner.__file__).parent
UNSAFE = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "jsonpickle")
ALLOWED = {  # file -> why
    "serving/batch/on_ray.py": "windows from one actor of a job to another, never from a file or a stranger",
}
RUNS = {"eval", "exec", "compile", "__import__"}


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def given(call: ast.Call, name: str) -> str:
    return next((ast.unparse(word.value) for word in call.keywords if word.arg == name), "")


def findings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (f"line {node.lineno}: imports {name}" for name in names if name.split(".")[0] in UNSAFE)
    for call, name in calls(path):
        if name == "torch.load" and given(call, "weights_only") != "True":
            yield f"line {call.lineno}: torch.load without weights_only=True"
        if name in ("np.load", "numpy.load") and given(call, "allow_pickle") not in ("", "False"):
            yield f"line {call.lineno}: np.load with allow_pickle"
        if name == "read_pickle" or name.endswith(".read_pickle"):
            yield f"line {call.lineno}: {name}"
        if name in RUNS:
            yield f"line {call.lineno}: {name}"
        if name.endswith("from_pretrained") and given(call, "trust_remote_code") == "True":
            yield f"line {call.lineno}: trusts the code of every checkpoint"
        if name.startswith("subprocess.") and given(call, "shell") == "True":
            yield f"line {call.lineno}: a shell"


def test_nothing_unpickles_or_runs_what_it_reads() -> None:
    found = {path.relative_to(SRC).as_posix(): list(findings(path)) for path in sorted(SRC.rglob("*.py"))}
    unsafe = {name: lines for name, lines in found.items() if lines and name not in ALLOWED}
    assert not unsafe
    assert not [name for name in ALLOWED if not found[name]], "an allowance that is not needed any more"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from dill import loads", "torch.load(path)", "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)", "pd.read_pickle(path)", "eval(text)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)", "subprocess.run(x, shell=True)",
    ],
)  # fmt: skip
def test_each_is_found(line: str, tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text(line)
    assert list(findings(tmp_path / "file.py"))


def test_arrays_of_objects_are_not_read_from_our_own_files() -> None:
    for path in SRC.rglob("*.npz"):
        with np.load(path) as data:
            assert all(data[name].dtype != object for name in data.files)
    assert not [path for kind in ("*.pt", "*.pth", "*.bin", "*.pkl") for path in SRC.rglob(kind)]


def test_weights_that_are_a_pickle_are_refused(tmp_path: Path) -> None:
    for file in embedded_folder().iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({"weight": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors") as caught:
        open_model(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1
