"""The benchmark harness: no figure without its checks, JSON with the agreed keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.common import RESULTS, Report, arguments, prepare

KEYS = {"name", "command", "machine", "load", "torch", "quick", "rows", "aims"}


def report(path: Path, *flags: str) -> Report:
    options = arguments("test").parse_args(["--out", str(path), *flags])
    return Report("some/thing", options, torch.device("cpu"))


def test_result_has_the_agreed_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = report(tmp_path / "deep" / "thing.json")
    measured.row("a", [3.0, 1.0, 2.0], kept=64)
    measured.aim("a is fast", 2.0, most=2.5)
    measured.aim("a is small", 9, most=3)
    measured.check(True, "never said")
    measured.finish()
    result = json.loads((tmp_path / "deep" / "thing.json").read_text())
    assert result.keys() == KEYS
    assert result["rows"] == [{"name": "a", "kept": 64, "median_ms": 2.0, "samples_ms": [3.0, 1.0, 2.0]}]
    assert [aim["met"] for aim in result["aims"]] == [True, False]
    assert result["command"].startswith("python -m benchmarks.some.thing")
    assert result["machine"]["threads"] == torch.get_num_threads()
    printed = capsys.readouterr().out
    assert "median_ms" in printed
    assert "samples" not in printed
    assert "NOT MET a is small" in printed


def test_a_command_names_no_place_on_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sys.argv", ["x", "--ray", "/some/where/bin/python", "--folder=/some/where/else", "--keep", "1/2"]
    )
    report(tmp_path / "thing.json").finish()
    said = json.loads((tmp_path / "thing.json").read_text())["command"]
    assert said == "python -m benchmarks.some.thing --ray python --folder=else --keep 1/2"
    for path in RESULTS.rglob("*.json"):
        found = json.loads(path.read_text())
        words = found.get("command", "").split() if isinstance(found, dict) else []
        assert not [word for word in words if word.partition("=")[2].startswith("/") or word.startswith("/")], path


def test_no_figure_when_a_check_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = report(tmp_path / "thing.json")
    measured.row("a", [1.0])
    measured.check(False, "logits differ")
    with pytest.raises(SystemExit, match="logits differ"):
        measured.finish()
    assert not (tmp_path / "thing.json").exists()
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_missing_gpu_is_said_in_plain_words(tmp_path: Path) -> None:
    options = arguments("test").parse_args(["--device", "cuda"])
    threads = torch.get_num_threads()
    with pytest.raises(SystemExit, match="no CUDA device"):
        prepare(options)
    torch.set_grad_enabled(True)
    torch.set_num_threads(threads)
