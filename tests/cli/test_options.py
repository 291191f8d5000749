"""Options that every command takes which opens a model or prunes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from tests.support.commands import complaint, run
from tests.support.tiny import checkpoint
from transformers import AutoModelForImageTextToText

from vlm_pruner import asking
from vlm_pruner.adapters import families
from vlm_pruner.asking import Loaded
from vlm_pruner.cli import app
from vlm_pruner.cli.pruning import Pruning
from vlm_pruner.methods import base, registry

OPENING = {
    "--device", "--dtype", "--revision", "--attn", "--device-map", "--quantize", "--trust-remote-code",
}  # fmt: skip
PRUNING = {"--plan", "--set", "--methods-from"}
COMMANDS = ("ask", "report", "demo", "serve", "batch", "bench", "profile", "check", "methods")
METHOD = '''
from dataclasses import dataclass
from typing import ClassVar

import torch
import vlm_pruner as vp


@dataclass(frozen=True)
class Every(vp.PruningMethod):
    """Every so manyth token, from one on."""

    name: ClassVar[str] = "{name}"
    title: ClassVar[str] = "Every"
    source: ClassVar[str] = "a test"

    first: int = 0

    def __post_init__(self):
        if self.first < 0:
            raise ValueError(f"first={{self.first}} is negative")

    def select(self, tokens, keep):
        index = (torch.arange(keep, device=tokens.features.device) * len(tokens) // keep + self.first) % len(tokens)
        return vp.Selection(index=index.sort().values)
'''


@pytest.fixture(scope="module")
def cup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "cup.png"
    Image.radial_gradient("L").resize((500, 400)).convert("RGB").save(path)
    return path


@pytest.fixture
def clean() -> Iterator[None]:
    """No method stays registered."""
    before = set(base._registered)
    yield
    base._registered.clear()
    base._registered.update(before)
    registry.cache_clear()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Loaded]:
    """Every model that a command opens."""
    found: list[Loaded] = []
    original = asking.open_model

    def remember(*args: Any, **kwargs: Any) -> Loaded:
        found.append(original(*args, **kwargs))
        return found[-1]

    monkeypatch.setattr(asking, "open_model", remember)
    return found


def ask(cup: Path, *words: object, method: str | None = "random") -> Any:
    chosen = [] if method is None else ["--method", method]
    return run("ask", cup, "what is this ?", "--model", checkpoint(), "--max-new-tokens", 2, *chosen, *words)


def report_of(result: Any) -> dict[str, Any]:
    assert result.exit_code == 0, (result.output, result.exception)
    return dict(json.loads(result.stdout)["answers"][1]["report"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_opens_a_model_takes_them_all(name: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {option for parameter in commands[name].params for option in parameter.opts}
    assert known >= OPENING | PRUNING
    assert set(commands) - set(COMMANDS) == {"models", "eval", "tune", "doctor", "explain"}


@pytest.mark.parametrize("name", ["eval", "tune"])
def test_commands_with_plans_of_their_own_take_those_of_the_model(name: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {option for parameter in commands[name].params for option in parameter.opts} >= OPENING


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention(attention: str, cup: Path, opened: list[Loaded]) -> None:
    report_of(ask(cup, "--attn", attention, "--json"))
    assert opened[0].model.base_model.get_decoder().config._attn_implementation == attention


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--attn", "flash"],
            "unknown attention backend 'flash'; known: sdpa, eager, flash_attention_2, flex",
        ),
        (["--quantize", "3bit"], "unknown quantisation '3bit'; known: 4bit, 8bit"),
        (["--device-map", "all"], "unknown device map 'all'; known: auto"),
        (["--device-map", "auto", "--device", "cpu"], "device 'cpu' and device map 'auto' exclude each other"),
        (["--revision", "v1"], "is a folder on this machine: only a model on the hub has a revision 'v1'"),
    ],
)
@pytest.mark.parametrize("command", ["ask", "report", "demo", "bench", "profile", "check", "methods"])
def test_what_cannot_be_is_one_line(command: str, words: list[str], said: str, cup: Path) -> None:
    if command == "demo":
        pytest.importorskip("gradio", reason="needs the extra `web`")
    model = [checkpoint()] if command in ("profile", "check") else ["--model", checkpoint()]
    before = {"ask": [cup, "what ?"], "report": [cup, "what ?"], "demo": ["--port", 0]}.get(command, [])
    assert said in complaint(run(command, *before, *model, *words))


def test_options_without_a_model_are_refused() -> None:
    assert complaint(run("methods", "--attn", "eager")).endswith("name one with --model")
    assert "name it with --model" in complaint(run("methods", "--set", "vlm-pruner.pivots=2"))


def test_a_shape_with_random_weights_has_no_such_options() -> None:
    assert complaint(run("profile", "tiny", "--quantize", "8bit")) == (
        "tiny is a shape with random weights: it cannot be opened with quantize"
    )


def test_device_map(cup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    told, original = [], AutoModelForImageTextToText.from_pretrained

    def listen(*args: Any, **kwargs: Any) -> Any:
        told.append(kwargs.get("device_map"))
        return original(*args, **kwargs)

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", listen)
    assert report_of(ask(cup, "--device-map", "auto", "--json"))["kept"] == 64
    assert told == ["auto"]


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantised_weights(bits: str, cup: Path, opened: list[Loaded]) -> None:
    pytest.importorskip("torchao")
    result = run("check", "embedded", "--quantize", bits, "--device", "cpu", "--new-tokens", 2, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0, found
    assert found["quantize"] == bits
    weight = opened[0].model.base_model.get_decoder().layers[0].self_attn.q_proj.weight
    assert type(weight).__module__.startswith("torchao.")


def _with_own_code(folder: Path) -> Path:
    """A checkpoint with a model_type of its own, and the Python file that knows it."""
    shutil.copytree(checkpoint(), folder)
    (folder / "mine.py").write_text(
        "import transformers\n\n\nclass MyConfig(transformers.LlavaConfig):\n    pass\n\n\n"
        "class MyModel(transformers.LlavaForConditionalGeneration):\n    config_class = MyConfig\n"
    )
    config = folder / "config.json"
    own = {"AutoConfig": "mine.MyConfig", "AutoModelForImageTextToText": "mine.MyModel"}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "mine", "auto_map": own}))
    return folder


def test_code_of_a_checkpoint_runs_only_if_somebody_says_so(
    cup: Path, tmp_path: Path, opened: list[Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _with_own_code(tmp_path / "mine")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    known = families()
    monkeypatch.setattr("vlm_pruner.adapters.families", lambda: {**known, "mine": known["llava"]})
    words = ["ask", cup, "what is this ?", "--max-new-tokens", 2, "--method", "random", "--model", folder]
    said = complaint(run(*words))
    assert "brings code of its own, which is not run unless you trust it" in said
    assert "--trust-remote-code" in said
    result = run(*words, "--trust-remote-code")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "code that the checkpoint brings is run, as --trust-remote-code says" in result.stderr
    assert type(opened[0].model).__name__ == "MyModel"


def _plan(folder: Path, **more: Any) -> Path:
    stages = [{"method": "grid", "keep": 100}, {"method": "random", "params": {"seed": 3}, "keep": 40, "layer": 2}]
    path = folder / "plan.json"
    path.write_text(json.dumps({"version": 1, "stages": stages, **more}))
    return path


def test_a_plan_is_carried_out(cup: Path, tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    assert report_of(ask(cup, "--plan", plan, "--json", method=None))["kept"] == 40
    page = tmp_path / "page.html"
    result = run("report", cup, "what ?", "--model", checkpoint(), "--plan", plan, "--max-new-tokens", 2, "-o", page)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "40" in page.read_text(encoding="utf-8")
    words = ["profile", checkpoint(), "--plan", plan, "--repeats", 1, "--new-tokens", 2, "--json"]
    assert json.loads(run(*words).stdout)["variants"][1]["kept"] == 40
    rows = json.loads(run("methods", "--model", checkpoint(), "--plan", plan, "--json").stdout)
    assert rows[-1] == {"name": "plan.json", "runs": True, "why_not": ""}


def test_the_page_takes_plans_and_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = pytest.importorskip("vlm_pruner.web.server", reason="needs the extra `web`")
    told: list[Any] = []

    @contextmanager
    def serve(loaded: Loaded, **options: Any) -> Iterator[str]:
        told.append(options["own"])
        yield "nowhere"

    monkeypatch.setattr(server, "serve", serve)
    words = ["demo", "--model", checkpoint(), "--port", 0, "--minutes", 0]
    assert run(*words, "--plan", _plan(tmp_path)).exit_code == 0
    assert run(*words, "--set", "random.seed=4").exit_code == 0
    assert list(told[0]) == ["plan.json"]
    assert told[1]["random"].params() == {"seed": 4}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "grid"], "leave out --method"),
        (["--keep", "3", "--layer", "1"], "leave out --keep, --layer"),
        (["--set", "random.seed=2"], "leave out --set"),
    ],
)
def test_a_plan_beside_what_it_says_itself(words: list[str], said: str, cup: Path, tmp_path: Path) -> None:
    assert complaint(ask(cup, "--plan", _plan(tmp_path), *words, method=None)).endswith(said)


def test_plans_beside_methods_of_a_comparison(cup: Path, tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    assert complaint(run("report", cup, "what ?", "--plan", plan, "--methods", "grid")).endswith("leave out --methods")
    assert complaint(run("bench", "--plan", plan, "--keep", "3", "--equal", "nominal")).endswith(
        "leave out --keep, --equal"
    )


def test_plans_that_are_none(cup: Path, tmp_path: Path) -> None:
    assert "no plan at " in complaint(ask(cup, "--plan", tmp_path / "none.json", method=None))
    (tmp_path / "bad.json").write_text("{")
    assert complaint(ask(cup, "--plan", tmp_path / "bad.json", method=None)).startswith("not a plan: ")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\xff")
    assert complaint(ask(cup, "--plan", tmp_path / "bytes.json", method=None)).endswith("it is no text")
    far = _plan(tmp_path, stages=[{"method": "grid", "keep": 3, "layer": 40}])
    assert "layer 40 does not exist" in complaint(ask(cup, "--plan", far, method=None))
    unknown = _plan(tmp_path, stages=[{"method": "gird", "keep": 3}])
    assert "did you mean 'grid'?" in complaint(ask(cup, "--plan", unknown, method=None))


def test_parameters_have_the_types_of_the_method(cup: Path) -> None:
    words = ["pivots=2", "merge=false", "threshold=0.9"]
    result = ask(cup, *(word for each in words for word in ("--set", each)), "--json", method="vlm-pruner")
    params = report_of(result)["plan"]["stages"][0]["params"]
    assert (params["pivots"], params["merge"], params["threshold"]) == (2, False, 0.9)
    assert type(params["pivots"]) is int
    chosen = Pruning(parameters=["hawk.weights=0.5,0.5", "holitom.beta=none"]).methods(["hawk", "holitom"])
    assert chosen["hawk"].params()["weights"] == (0.5, 0.5)
    assert chosen["holitom"].params()["beta"] is None
    assert Pruning(parameters=["weights=uniform"]).methods(["hawk"])["hawk"].params()["weights"] == "uniform"


@pytest.mark.parametrize(
    ("method", "word", "said"),
    [
        ("vlm-pruner", "pivots", "--set 'pivots' is not name=value"),
        ("vlm-pruner", "=3", "--set '=3' is not name=value"),
        ("vlm-pruner", "pivot=3", "unknown parameter of vlm-pruner 'pivot'; did you mean 'pivots'? Known: channels, "),
        ("vlm-pruner", "pivots=few", "pivots of vlm-pruner is a whole number (4 unless set), not 'few'"),
        ("vlm-pruner", "merge=1", "merge of vlm-pruner is true or false (True unless set), not '1'"),
        ("vlm-pruner", "threshold=nan", "threshold of vlm-pruner is a number (0.8 unless set), not 'nan'"),
        ("vlm-pruner", "pivots=0", "pivots=0 must be at least 1"),
        ("vlm-pruner", "grid.seed=3", "unknown method in --set 'grid'. Known: vlm-pruner"),
        ("holitom", "beta=much", "beta of holitom is a number or none (0.6 unless set), not 'much'"),
        ("fastv", "seed=3", "fastv has no parameters: 'seed' cannot be set"),
    ],
)
def test_parameters_that_cannot_be_set(method: str, word: str, said: str, cup: Path) -> None:
    assert complaint(ask(cup, "--set", word, method=method)).startswith(said)


def test_of_several_methods_a_parameter_says_whose_it_is(cup: Path, tmp_path: Path) -> None:
    words = ["report", cup, "what ?", "--model", checkpoint(), "--max-new-tokens", 2, "-o", tmp_path / "page.html"]
    several = [*words, "--methods", "random,grid", "--keep", "9"]
    assert "must name its method: METHOD.seed=3, METHOD one of random, grid" in complaint(
        run(*several, "--set", "seed=3")
    )
    result = run(*several, "--set", "random.seed=3")
    assert result.exit_code == 0, (result.output, result.exception)
    said = complaint(run("bench", "--methods", "random", "--set", "random.seed=3"))
    assert (
        said == "--set random.seed cannot be used: the benchmark runs the method with the seeds 0 to N-1 of --seeds N"
    )


@pytest.mark.usefixtures("clean")
def test_a_method_of_ones_own(cup: Path, tmp_path: Path) -> None:
    file = tmp_path / "my_own_method.py"
    file.write_text(METHOD.format(name="every"))
    own = ["--methods-from", file]
    found = report_of(ask(cup, *own, "--keep", 48, "--set", "first=5", "--json", method="every"))
    assert found["kept"] == 48
    assert found["plan"]["stages"][0] == {"method": "every", "params": {"first": 5}, "keep": 48, "layer": None}
    assert "every" in [row["name"] for row in json.loads(run("methods", *own, "--json").stdout)]
    assert complaint(ask(cup, *own, "--set", "first=-1", method="every")).endswith("first=-1 is negative")
    assert "unknown parameter of every 'last'. Known: first" in complaint(
        ask(cup, *own, "--set", "last=1", method="every")
    )


@pytest.mark.slow
@pytest.mark.usefixtures("clean")
def test_a_benchmark_of_a_plan_and_of_a_method_of_ones_own(tmp_path: Path) -> None:
    file, out = tmp_path / "my_bench_method.py", tmp_path / "r.json"
    file.write_text(METHOD.format(name="every-other"))
    words = ["bench", "--model", checkpoint(), "--limit", 1, "--repeats", 0, "-o", out]
    own = ["--methods", "every-other", "--methods-from", file, "--set", "every-other.first=2", "--keep", "64"]
    result = run(*words, *own, "--jobs", 2)  # worker processes find the file, too
    assert result.exit_code == 0, (result.output, result.exception)
    rows = {cell["label"]: cell for cell in json.loads(out.read_text())["cells"]}
    assert rows.keys() == {"none", "every-other"}
    result = run(*words, "--plan", _plan(tmp_path), "--jobs", 1)
    assert result.exit_code == 0, (result.output, result.exception)
    rows = {cell["label"]: cell for cell in json.loads(out.read_text())["cells"]}
    assert (rows.keys(), rows["plan.json"]["budget"]) == ({"none", "plan.json"}, 40)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("my-method.py", METHOD, "is no Python file with a name that can be imported"),
        ("none_there.py", None, "no file of methods at "),
        ("raises_at_import.py", "1 / 0", "raises_at_import.py cannot be imported: ZeroDivisionError: division by zero"),
        ("no_syntax.py", "def", "no_syntax.py cannot be imported: SyntaxError: "),
        ("empty_of_methods.py", "x = 1", "empty_of_methods.py defines no method: a dataclass derived from"),
        ("json.py", METHOD, "another module is called 'json': give json.py another name"),
        ("name_is_taken.py", METHOD.replace("{name}", "grid"), "a method called 'grid' is there already"),
        ("no_dataclass.py", METHOD.replace("@dataclass(frozen=True)", ""), "Every must be a dataclass"),
        ("no_select.py", METHOD.replace("def select", "def choose"), "Every needs select"),
        ("no_title.py", METHOD.replace("title: ", "head: "), "Every needs title as text"),
    ],
)
def test_files_that_hold_no_method(name: str, text: str | None, said: str, cup: Path, tmp_path: Path) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text.replace("{name}", "everything").replace("{{", "{").replace("}}", "}"))
    assert said in complaint(run("methods", "--methods-from", file))
