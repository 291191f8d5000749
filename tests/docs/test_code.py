"""Every block of code on the pages is run or, where it cannot be, at least read by its language."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.support.chat_server import chat_server
from tests.support.commands import run
from tests.support.pages import PAGES, ROOT, blocks, name
from tests.support.videos import write_video

from vlm_pruner import load_embedded, scenes
from vlm_pruner.models.embedded import embedded_folder

LANGUAGES = {"python", "sh", "bash", "json", "toml", "yaml", "text"}
NOT_RUN = {"docs/recipes.md": 1, "docs/models.md": 1, "docs/serving.md": 1}
"""Page -> Python blocks that are compiled only; the page says why in front of each."""
RUN_ELSEWHERE = {f"docs/notebooks/{book}.md" for book in ("first_steps", "your_own_method")}  # by test_notebooks.py
RECIPES = ROOT / "docs" / "recipes.md"


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    """What a page may take for granted: a model, its processor, an image and a prompt."""
    model, processor = load_embedded()
    image = Image.open(scenes.DEMO)
    content = [{"type": "image"}, {"type": "text", "text": scenes.DEMO_QUESTIONS[0][0]}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=[prompt], images=[image], return_tensors="pt")
    return {"model": model, "processor": processor, "image": image, "inputs": inputs}


def python_pages() -> list[Path]:
    return [p for p in PAGES if p != RECIPES and name(p) not in RUN_ELSEWHERE and blocks(p, "python")]


@pytest.mark.parametrize("page", python_pages(), ids=name)
def test_python_runs_in_the_order_of_the_page(page, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = dict(given)
    for number, block in enumerate(blocks(page, "python")):
        code = compile(block.body, f"{name(page)}, block {number}", "exec")
        if not block.why:
            exec(code, namespace)


def test_what_is_not_run_is_counted_and_has_a_reason():
    reasons = {name(page): [block.why for block in blocks(page, "python") if block.why] for page in PAGES}
    assert {page: len(whys) for page, whys in reasons.items() if whys} == NOT_RUN
    assert all(len(why) > 20 for whys in reasons.values() for why in whys)


def test_the_four_lines_of_the_readme_prune(given, capsys):
    exec(blocks(PAGES[0], "python")[0].body, dict(given))
    assert capsys.readouterr().out.startswith("64/576 tokens kept")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_are_fenced_and_can_be_read(page):
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"^ *```(\w*)\n(?:.*\n)*?^ *```$", text, re.MULTILINE)) <= LANGUAGES, "an unknown language"
    indented = re.findall(r"(?<=\n\n)    (?! *[-*\d:]).+", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
    assert not indented, "code without a fence: no test sees it"
    for block in blocks(page, "json"):
        json.loads(block.body)
    for block in blocks(page, "toml"):
        tomllib.loads(block.body)
    for block in blocks(page, "yaml"):
        list(yaml.safe_load_all(block.body))
    for block in blocks(page, "sh", "bash"):
        read = subprocess.run(["bash", "-n"], input=block.body, capture_output=True, text=True)
        assert read.returncode == 0, read.stderr


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the recipes name."""
    shutil.copytree(embedded_folder(), tmp_path / "my-checkpoint")
    shutil.copytree(embedded_folder(video=True), tmp_path / "my-video-model")
    (tmp_path / "photos").mkdir()
    with Image.open(scenes.DEMO) as demo:
        for file in ("photo.jpg", "second.jpg", "photos/one.jpg", "photos/two.jpg"):
            demo.convert("RGB").save(tmp_path / file, quality=95)
    write_video(tmp_path / "clip.mp4", 40, (112, 112), picture=_still)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _still(number: int, of: int, size: tuple[int, int]) -> np.ndarray:
    return np.full((size[1], size[0], 3), 60 + number, np.uint8)


def steps() -> Iterator[tuple[str, str]]:
    """(language, text) of the recipes, commands line by line, in the order of the page."""
    for block in blocks(RECIPES, "python", "sh"):
        if block.language == "python" and not block.why:
            yield "python", block.body
        elif block.language == "sh":
            yield from (("sh", line) for line in block.body.splitlines())


@pytest.mark.filterwarnings("ignore")  # of packages that the recipes bring in: peft, torchao
def test_every_recipe_runs(workplace: Path):
    namespace: dict[str, Any] = {}
    with ExitStack() as servers:
        port = "8000"
        for language, text in steps():
            if language == "python":
                exec(compile(text.replace("127.0.0.1:8000", f"127.0.0.1:{port}"), "recipes.md", "exec"), namespace)
                continue
            program, command, *words = shlex.split(text, comments=True)
            assert program == "vlm-pruner"
            if command == "serve":  # which would not come back
                address, _ = servers.enter_context(chat_server())
                port = address.rpartition(":")[2]
                continue
            result = run(command, *words)
            assert result.exit_code == 0, (text, result.output, result.exception)
    assert {path.name for path in workplace.iterdir()} >= {"kept.png", "kept.gif", "answers.jsonl"}
    assert [row["kept"] for row in namespace["rows"]] == [64, 64]
    assert namespace["said"]
    assert namespace["conversation"][1]["content"][0]["text"]
