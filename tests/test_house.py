"""The rules of the house, read from the source: import direction, lean import, public names, sizes, docstrings."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import vlm_pruner
from vlm_pruner.methods import registry

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "vlm_pruner"
MODULES = sorted(SRC.rglob("*.py"))
SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))

LEVELS = (
    ("errors", "types"),
    ("config_fields", "json_text", "torchvision_fit"),
    ("budget", "flops"),
    ("ops",),
    ("methods",),
    ("stage",),
    ("plan",),
    ("adapters",),
    ("engine", "report"),
    ("models", "scenes", "profiling", "verify", "viz", "video", "asking", "evaluation", "serving", "web"),
    ("cli", "__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

THIRD_PARTY = {  # package -> rooms that may import it; torch is free for all
    "transformers": {room for room, level in LEVEL.items() if level >= LEVEL["adapters"]},
    "triton": {"ops"},
    "vllm": {"serving"},
    "ray": {"serving"},
    "lmms_eval": {"evaluation"},
    "gradio": {"web"},
    "typer": {"cli", "__main__"},
}

FAMILIES = re.compile(
    r"llava|qwen|internvl|idefics|smolvlm|paligemma|gemma|llama|pixtral|mistral|vicuna|deepseek|siglip", re.IGNORECASE
)
MAY_NAME_FAMILIES = {
    "adapters": "the one place where families differ",
    "models": "configurations of models that are built, not adapted to",
    "serving/vllm/families.py": "architectures that vLLM knows by name; nothing branches on them",
    "video/stand_ins.py": "which processors of transformers are stood in for",
    "profiling/shapes.py": "widths of published models by name; nothing branches on them",
}

LONG_FILES: dict[str, str] = {}  # path -> why splitting would hide the story
LONG_FUNCTIONS: dict[str, str] = {}  # "path:function" -> why

PUBLIC = {  # beside these, only method classes are exported
    "BackendUnavailableError",
    "DensityPlans",
    "ImageRecord",
    "ImageReport",
    "InputError",
    "InvalidSelectionError",
    "MissingSignalError",
    "NotFiniteError",
    "PlanError",
    "PrunePlan",
    "PruneReport",
    "PrunedCacheError",
    "PruningMethod",
    "Selection",
    "Session",
    "SessionTotal",
    "Signal",
    "Stage",
    "UnsupportedModelError",
    "VisionSignals",
    "VisualTokens",
    "VlmPrunerError",
    "attach",
    "detach",
    "plan_for",
    "keep_count",
    "load_embedded",
    "prune",
}


def name(path: Path) -> str:
    return path.relative_to(SRC if path.is_relative_to(SRC) else ROOT).as_posix()


def room(path: Path) -> str:
    return Path(name(path)).parts[0].removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything imported anywhere in a file, also inside functions; `from a import b` gives a.b."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = path.relative_to(SRC.parent).with_suffix("").parts[: -node.level or None]
            base = ".".join([*(here if node.level else ()), *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    found = {dotted.split(".")[1] for dotted in imports(path) if dotted.startswith("vlm_pruner.")}
    return found - {room(path)} - set(vlm_pruner.__all__) - {"__version__"}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_one_way(path: Path) -> None:
    if path == SRC / "__init__.py":
        return
    assert room(path) in LEVEL, f"{name(path)}: room {room(path)!r} has no place in LEVELS"
    upward = {other for other in rooms_imported(path) if LEVEL[other] > LEVEL[room(path)]}
    assert not upward, f"{name(path)} imports from rooms above its own: {sorted(upward)}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_name_the_home_of_what_they_import(path: Path) -> None:
    """The lazy names of the package are for users; inside, they would hide the direction of an import."""
    lazy = {"vlm_pruner", *(f"vlm_pruner.{export}" for export in vlm_pruner.__all__)} & set(imports(path))
    assert not lazy, f"{name(path)} imports {sorted(lazy)} through the package; import from the module that defines it"


def test_rooms_of_one_level_do_not_import_each_other_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for path in MODULES:
        if path != SRC / "__init__.py":
            edges.setdefault(room(path), set()).update(rooms_imported(path))
    while leaves := {here for here, there in edges.items() if not there & edges.keys()}:
        edges = {here: there for here, there in edges.items() if here not in leaves}
    assert not edges, f"rooms that import each other: {edges}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_third_parties_stay_in_their_rooms(path: Path) -> None:
    for package, rooms in THIRD_PARTY.items():
        used = any(dotted.split(".")[0] == package for dotted in imports(path))
        assert not used or room(path) in rooms, f"{name(path)} imports {package}; only {sorted(rooms)} may"


LEAN = """
import sys
{code}
heavy = {{"transformers", "triton", "matplotlib", "gradio", "PIL"}} & sys.modules.keys()
assert not heavy, f"loaded: {{sorted(heavy)}}"
torch = sys.modules.get("torch")
assert torch is None or not torch.cuda.is_initialized(), "CUDA was initialised"
"""


@pytest.mark.parametrize(
    "code",
    ["import vlm_pruner", "import vlm_pruner.methods; vlm_pruner.methods.registry()", "import vlm_pruner.flops"],
)
def test_import_is_lean(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", LEAN.format(code=code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_matplotlib_is_never_imported_with_a_module(path: Path) -> None:
    top = [node for node in tree(path).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [node.lineno for node in top if "matplotlib" in ast.unparse(node)], (
        f"{name(path)}: import it in functions"
    )


def test_the_command_line_says_what_it_can_without_torch() -> None:
    code = "import sys, vlm_pruner.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_pinned_and_there() -> None:
    assert list(vlm_pruner.__all__) == sorted(vlm_pruner.__all__)
    exported = {export: getattr(vlm_pruner, export) for export in vlm_pruner.__all__}
    methods = {export for export, value in exported.items() if value in set(registry().values())}
    assert exported.keys() - methods == PUBLIC
    assert exported.keys() <= set(dir(vlm_pruner))
    with pytest.raises(AttributeError, match="no attribute 'prunne'"):
        vlm_pruner.prunne  # noqa: B018


def definitions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_public_names_have_docstrings(path: Path) -> None:
    assert ast.get_docstring(tree(path)), f"{name(path)} has no docstring"
    exported = {
        element.value
        for node in tree(path).body
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "__all__"
        and isinstance(node.value, ast.List)
        for element in node.value.elts
        if isinstance(element, ast.Constant)
    }
    silent = [node.name for node in definitions(path) if node.name in exported and not ast.get_docstring(node)]
    assert not silent, f"{name(path)}: no docstring on {silent}"


def words(path: Path) -> Iterator[tuple[int, str]]:
    """Identifiers and string literals of a file with their lines, docstrings and comments left out."""
    prose = {id(node.body[0].value) for node in ast.walk(tree(path)) if _has_docstring(node)}
    for node in ast.walk(tree(path)):
        line = getattr(node, "lineno", 0)
        for field in ("id", "attr", "arg", "name", "module", "asname"):
            if isinstance(getattr(node, field, None), str):
                yield line, getattr(node, field)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield line, node.value


def _has_docstring(node: ast.AST) -> bool:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return isinstance(node, documented) and ast.get_docstring(node) is not None


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_model_families_are_named_in_adapters_only(path: Path) -> None:
    if room(path) in MAY_NAME_FAMILIES or name(path) in MAY_NAME_FAMILIES:
        return
    named = [f"line {line}: {word!r}" for line, word in words(path) if FAMILIES.search(word)]
    assert not named, f"{name(path)} names a model family; that belongs into adapters/: {named}"


@pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=name)
def test_files_and_functions_stay_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines < 300 or name(path) in LONG_FILES, f"{name(path)} has {lines} lines"
    for node in definitions(path):
        if isinstance(node, ast.ClassDef) or f"{name(path)}:{node.name}" in LONG_FUNCTIONS:
            continue
        first = node.body[1] if _has_docstring(node) and len(node.body) > 1 else node.body[0]
        length = (node.body[-1].end_lineno or 0) - first.lineno + 1
        assert length < 40, f"{name(path)}: {node.name} has {length} lines after its docstring"


def test_no_merge_is_left_half_done() -> None:
    """The changelog held both sides of one, and every change twice."""
    folders = [ROOT / name for name in ("src", "tests", "benchmarks", "docs", ".ci")]
    files = [*ROOT.iterdir(), *(path for folder in folders for path in folder.rglob("*"))]
    texts = [path for path in files if path.suffix in ("", ".cff", ".css", ".md", ".py", ".toml", ".txt", ".yml")]
    marks = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
    found = [str(path) for path in texts if path.is_file() and marks.search(path.read_text("utf-8", "replace"))]
    assert not found


def test_allowances_are_still_needed() -> None:
    stale = [key for key in LONG_FILES if not (SRC / key).exists() and not (ROOT / key).exists()]
    assert not stale, f"LONG_FILES names files that are gone: {stale}"
