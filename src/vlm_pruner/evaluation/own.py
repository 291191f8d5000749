"""Questions of your own: a file with a JSON object per line, about pictures and videos that lie where it says."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from vlm_pruner.adapters import adapter_for
from vlm_pruner.asking.models import Loaded
from vlm_pruner.asking.opening import open_image
from vlm_pruner.asking.prompts import Kind, check_question, kinds_of, prompt_text
from vlm_pruner.asking.shapes import check_shape
from vlm_pruner.asking.videos import Shown, open_shown, pictures_in
from vlm_pruner.errors import InputError, VlmPrunerError, unknown_name
from vlm_pruner.evaluation.matching import Match, match_named
from vlm_pruner.evaluation.questions import Asked
from vlm_pruner.json_text import read_json
from vlm_pruner.video import Sampling

__all__ = ["OwnQuestion", "about_own", "ask_own", "images_of", "questions_about", "read_questions", "sampling_of"]

KEYS = ("answer", "folder", "fps", "frames", "group", "id", "image", "images", "question", "video")
_PLACES = ("image", "images", "folder", "video")


@dataclass(frozen=True)
class OwnQuestion:
    """One line of the file."""

    id: str  # "line-7" where the line has none
    images: tuple[Path, ...]
    question: str
    answers: tuple[str, ...]  # all that are accepted
    group: str  # tables have a column for each
    sampling: Sampling | None = None  # of a video, which is the only one of `images`; None = they are pictures


def read_questions(path: str | Path, limit: int | None = None, *, labelled: bool = True) -> list[OwnQuestion]:
    """The questions of a file, its paths taken from the folder in which it lies.

    A line is `{"image": "a.png", "question": "...", "answer": "..."}`; `images` is a list of files and `folder` one
    whose pictures are shown in the order of their names; `video` is a video file or a folder of its frames, of which
    `fps` or `frames` are read. `answer` may be a list of all that are right. `group` (a name, "all" by default) and
    `id` may be left out. Empty lines do not count.

    Args:
        limit: the first so many of every group.
        labelled: every line must have an answer.

    Raises:
        InputError: no such file, nothing in it, or a line that is not as above; the message has its number.
    """
    file = Path(path)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read questions from {str(path)!r}: {error}") from error
    found: dict[str, OwnQuestion] = {}
    groups: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            one = _question(line, number, file.parent, labelled)
            if one.id in found:
                raise InputError(f"the id {one.id!r} was used before")
        except InputError as error:
            raise InputError(f"{file}, line {number}: {error}") from error
        groups[one.group] = groups.get(one.group, 0) + 1
        if limit is None or groups[one.group] <= limit:
            found[one.id] = one
    if not found:
        raise InputError(f"{str(path)!r} holds no questions")
    return list(found.values())


def _question(line: str, number: int, folder: Path, labelled: bool) -> OwnQuestion:
    data = read_json(line)
    if not isinstance(data, dict):
        raise InputError(f"not a JSON object, but a {type(data).__name__}")
    if unknown := [key for key in data if key not in KEYS]:
        raise InputError(unknown_name("key", unknown[0], KEYS))
    if missing := [key for key in ("question", *["answer"] * labelled) if key not in data]:
        raise InputError(f"no {missing[0]!r}")
    texts = _texts(data["answer"]) if "answer" in data else ()
    named = {"id": f"line-{number}", "group": "all"} | {key: data[key] for key in ("id", "group") if key in data}
    for key, value in (named | {"question": data["question"]}).items():
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{key!r} is a text, not {value!r}")
    return OwnQuestion(named["id"], images_of(data, folder), data["question"], texts, named["group"], sampling_of(data))


def sampling_of(data: Mapping[str, Any]) -> Sampling | None:
    """Which frames of a video are read; None where a line is about pictures."""
    given = {key: data[key] for key in ("fps", "frames") if key in data}
    if "video" not in data:
        if given:
            raise InputError(f"{next(iter(given))!r} belongs to a line with 'video'")
        return None
    for key, kinds in (("fps", int | float), ("frames", int)):
        if key in given and (isinstance(given[key], bool) or not isinstance(given[key], kinds)):
            raise InputError(f"{key!r} is a number, not {given[key]!r}")
    return Sampling(**given)


def _texts(given: Any) -> tuple[str, ...]:
    answers = given if isinstance(given, list) else [given]
    texts = tuple(str(one) for one in answers if isinstance(one, str | int | float) and not isinstance(one, bool))
    if not texts or len(texts) != len(answers):
        raise InputError(f"'answer' is a text or a list of texts, not {given!r}")
    return texts


def images_of(data: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """The pictures that a line names, their paths taken from `folder`.

    Raises:
        InputError: not just one of 'image', 'images', 'folder' and 'video', or one that names nothing.
    """
    given = [key for key in _PLACES if key in data]
    if len(given) != 1:
        raise InputError(
            "name what is shown with one of 'image', 'images', 'folder' and 'video'" + (", not two" if given else "")
        )
    value = data[given[0]]
    names = value if given == ["images"] else [value]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{given[0]!r} is {'a list of names' if given == ['images'] else 'a name'}, not {value!r}")
    if given == ["folder"]:
        return tuple(pictures_in(folder / names[0]))
    return tuple(folder / name for name in names)


def questions_about(pictures: Sequence[Path], texts: Sequence[str]) -> list[OwnQuestion]:
    """Every one of the texts asked about every picture; without answers."""
    return [
        OwnQuestion(f"{picture.name} {number}", (picture,), text, (), "all")
        for picture in pictures
        for number, text in enumerate(texts, 1)
    ]


def ask_own(model: Any, processor: Any, questions: Sequence[OwnQuestion], match: str = "normalised") -> list[Asked]:
    """The questions as the benchmark asks them. Every picture is opened once, so that none fails later.

    Args:
        match: a name of `matching.MATCHES`.

    Raises:
        InputError: a picture or a question that the model cannot be asked; the message names the question.
    """
    form = adapter_for(model.base_model.config.model_type).prompt
    loaded = Loaded("", model, processor)
    scenes: dict[tuple[Any, ...], int] = {}
    kinds: dict[tuple[Any, ...], list[Kind]] = {}
    score = match_named(match)
    asked = []
    for one in questions:
        scene = (one.images, one.sampling)
        try:
            if scene not in kinds:
                opened = _open(loaded, *scene)
                for shown in opened:
                    if isinstance(shown, Image.Image):
                        check_shape(processor, shown)
                kinds[scene] = kinds_of(opened)
            check_question(processor, one.question)
            prompt = prompt_text(processor, one.question, kinds[scene], form)
        except VlmPrunerError as error:
            raise InputError(f"question {one.id!r}: {error}") from error
        asked.append(
            Asked(
                key=one.id,
                scene=scenes.setdefault(scene, len(scenes)),
                type=one.group,
                chance=None,
                pictures=len(kinds[scene]),
                draw=partial(_open, loaded, *scene),
                prompt=prompt,
                score=partial(_score, score, one.answers),
                evidence=None,
                objects=None,
                videos="video" in kinds[scene],
            )
        )
    return asked


def _open(loaded: Loaded, files: Sequence[Path], sampling: Sampling | None) -> list[Shown]:
    """What stands in the prompt: pictures, or a video, whose frames are pictures where a model takes no videos."""
    if sampling is None:
        return [open_image(file) for file in files]
    clip, _ = loaded.reader.fitted(open_shown(files[0], sampling), sampling != Sampling())
    return loaded.reader.spread(clip)


def _score(match: Match, accepted: Sequence[str], answer: str) -> float:
    return round(match(answer, accepted), 4)


def _bytes(path: Path) -> bytes:
    """Of a file, or of all frames in a folder."""
    return b"".join(file.read_bytes() for file in pictures_in(path)) if path.is_dir() else path.read_bytes()


def about_own(path: str | Path, questions: Sequence[OwnQuestion], match: str) -> dict[str, Any]:
    """What was asked, for the record: `fingerprint` is a hash over questions, answers and the bytes of the pictures."""
    digest = hashlib.sha256()
    known: dict[Path, str] = {}
    for one in questions:
        for file in one.images:
            if file not in known:
                known[file] = hashlib.sha256(_bytes(file)).hexdigest()
        row: list[Any] = [one.id, one.question, one.answers, one.group, [known[file] for file in one.images]]
        row += [] if one.sampling is None else [[one.sampling.fps, one.sampling.frames]]
        digest.update(json.dumps(row).encode())
    return {"name": os.path.basename(path), "version": 1, "match": match, "fingerprint": digest.hexdigest()[:16]}
