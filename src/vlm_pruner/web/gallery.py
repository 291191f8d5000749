"""The pictures that come with the page, the questions they suggest, and pictures and videos that visitors bring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from vlm_pruner.asking import Shown, open_image, open_shown
from vlm_pruner.errors import InputError, VlmPrunerError
from vlm_pruner.scenes import DEMO, DEMO_QUESTIONS, load_split, score
from vlm_pruner.scenes.questions import ONE_IMAGE
from vlm_pruner.scenes.render import ASSETS
from vlm_pruner.scenes.splits import Question
from vlm_pruner.web.settings import UPLOADED

__all__ = ["LONGEST_SIDE", "Picture", "gallery", "read_upload"]

LONGEST_SIDE = 2048  # pixels that stay of an uploaded picture: those of many visitors have to fit in memory
LONGEST_FRAME = 640  # of every frame of an uploaded video
SUGGESTED = 6  # questions about a scene

_SCENES = ("counting", "word", "relation", "comparison", "small")
_PHOTOS = {
    "chelsea": ("Cat", ("What animal is this?", "What is it looking at?")),
    "coffee": ("Coffee", ("What stands on the table?", "What color is the cup?")),
    "rocket": ("Rocket", ("What is happening here?", "Is it day or night?")),
    "astronaut": ("Astronaut", ("Who is this?", "What color is the suit?")),
}


@dataclass(frozen=True)
class Picture:
    """A picture or a video of the page; `truths` maps the questions whose answers are known to these answers."""

    key: str
    title: str
    image: Shown = field(repr=False, compare=False)
    questions: tuple[str, ...] = ()
    truths: Mapping[str, Question] = field(default_factory=dict, repr=False, compare=False)
    file: str = ""  # the name of a visitor's own

    def verdict(self, question: str, answer: str) -> bool | None:
        """Is the answer right? None where nobody knows."""
        known = self.truths.get(question.strip())
        return None if known is None else bool(score(known, answer))

    def truth(self, question: str) -> str | None:
        """The known answer to a question."""
        known = self.truths.get(question.strip())
        return None if known is None else known.answer


@cache
def gallery() -> Mapping[str, Picture]:
    """The shipped pictures by key: scenes, about which the embedded model can be asked, then photographs."""
    demo = {text: _known(text, answer) for text, answer in DEMO_QUESTIONS}
    pictures = [Picture("demo", "Scene: word, number, symbols", open_image(DEMO), tuple(demo), demo)]
    for question in load_split("test", limit=1, types=_SCENES):
        truths = _questions(question)
        pictures.append(
            Picture(f"scene-{question.type}", f"Scene: {question.type}", question.images[0], tuple(truths), truths)
        )
    for name, (title, questions) in _PHOTOS.items():
        pictures.append(Picture(f"photo-{name}", f"Photograph: {title}", open_image(ASSETS / f"{name}.jpg"), questions))
    return {picture.key: picture for picture in pictures}


def _questions(first: Question) -> dict[str, Question]:
    """A question and others about its scene, of a type each, by their text."""
    scene, rng = first.scenes[0], np.random.default_rng(0)
    known = {first.text: first}
    for kind, draw in ONE_IMAGE.items():
        draft = draw(rng, scene)
        if draft is not None and kind != first.type and len(known) < SUGGESTED:
            known[draft.text] = replace(_known(draft.text, draft.answer), type=kind)
    return known


def _known(text: str, answer: str) -> Question:
    return Question(text, "demo", text, answer, 0.0, (), ())


def read_upload(path: str | Path) -> Picture:
    """A visitor's file as a picture of at most `LONGEST_SIDE` pixels a side, or a video of at most `LONGEST_FRAME`.

    Raises:
        InputError: neither image nor video, a damaged one, or one that is too large or too long; the text names the
            file without the server's folders.
    """
    file = Path(path)
    try:
        shown = open_shown(file)
    except VlmPrunerError as error:
        raise InputError(str(error).replace(str(file), file.name)) from error
    if not isinstance(shown, Image.Image):
        clip = shown.shrunk(LONGEST_FRAME)
        return Picture(UPLOADED, "Your video", clip, ("What happens here?", "Describe the video."), file=file.name)
    image = shown
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return Picture(UPLOADED, "Your picture", image, ("What is shown here?", "Describe the picture."), file=file.name)
