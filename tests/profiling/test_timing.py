"""Clocks, probes and peak memory."""

from __future__ import annotations

import platform
import time
from math import isnan
from pathlib import Path

import pytest
import torch
from torch import nn

from vlm_pruner.engine.clock import elapsed_ms
from vlm_pruner.profiling import timing
from vlm_pruner.profiling.timing import Probe, describe_machine, interleave, median, peak_bytes

CPU = torch.device("cpu")


class Sleep(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return x


def test_marks_of_the_host_are_seconds() -> None:
    assert elapsed_ms(1.0, 1.25) == 250.0


def test_probe_times_every_call_and_leaves_no_hook() -> None:
    inner, outer = Sleep(0.01), nn.Sequential()
    outer.append(inner)
    inner.register_forward_pre_hook(lambda *_: time.sleep(0.01))
    with Probe({"inner": inner, "outer": outer}, CPU) as probe:
        outer(torch.zeros(1))
        outer(torch.zeros(1))
    times = probe.times()
    assert [len(times["inner"]), len(times["outer"])] == [2, 2]
    assert min(times["inner"]) >= 20, "hooks that were there before are part of the call"
    assert times["outer"][0] >= times["inner"][0]
    total = probe.since_start()
    assert total() >= probe.until("outer", 1) >= times["outer"][0] + times["outer"][1]
    assert not outer._forward_pre_hooks
    assert not outer._forward_hooks
    assert len(inner._forward_pre_hooks) == 1


def test_probe_leaves_no_hook_after_an_error() -> None:
    module = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), Probe({"module": module}, CPU):
        module(torch.zeros(3))
    assert not module._forward_pre_hooks
    assert not module._forward_hooks


def test_interleave_runs_in_turns_and_drops_the_warm_up() -> None:
    calls: list[str] = []
    counts = {"a": 0, "b": 0}

    def run(name: str) -> int:
        calls.append(name)
        counts[name] += 1
        return counts[name]

    told: list[tuple[str, float]] = []
    candidates = {"a": lambda: run("a"), "b": lambda: run("b")}
    found = interleave(candidates, repeats=3, warmup=1, progress=lambda *step: told.append(step))
    assert told[:3] == [("a", 0.0), ("b", 0.125), ("b", 0.25)]
    assert calls == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert found == {"a": [2, 3, 4], "b": [2, 3, 4]}


def test_median_of_nothing_is_nan() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert isnan(median([]))


def test_peak_bytes_counts_temporaries_and_not_what_was_there() -> None:
    x = torch.ones(1000, 250)

    def work() -> torch.Tensor:
        return (x + 1) * 2  # the sum lives beside the product

    work()
    assert 2 * x.nbytes <= peak_bytes(work, CPU) <= 2 * x.nbytes + 64, "the numbers 1 and 2 are tensors too"
    assert peak_bytes(lambda: x.mul_(x), CPU) == 0


def test_peak_bytes_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    peak_bytes(lambda: torch.ones(3), CPU)
    assert capfd.readouterr() == ("", "")


def test_machine_names_what_a_figure_depends_on() -> None:
    machine = describe_machine(CPU)
    assert machine["device"] == "cpu"
    assert machine["torch"] == torch.__version__
    assert machine["threads"] == torch.get_num_threads()
    assert machine["processor"]
    assert "gpu" not in machine


CPUINFO = "processor\t: 0\nmodel name\t: Fast 9: 2 GHz\nprocessor\t: 1\nmodel name\t: other\n"


@pytest.mark.parametrize("text", [CPUINFO, "flags\t: x\n", None])
def test_a_processor_has_the_name_that_the_system_gives_it(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    if text is not None:
        info.write_text(text)
    monkeypatch.setattr(timing, "Path", {"/proc/cpuinfo": info}.__getitem__)
    usual = platform.processor() or platform.machine()
    assert describe_machine(CPU)["processor"] == ("Fast 9: 2 GHz" if text and "name" in text else usual)
