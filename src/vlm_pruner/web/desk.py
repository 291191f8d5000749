"""What the page does when a visitor acts: plain functions from values to values, no Gradio."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from vlm_pruner.errors import InputError, VlmPrunerError
from vlm_pruner.video import Clip
from vlm_pruner.web.board import Board
from vlm_pruner.web.budgets import Budgets
from vlm_pruner.web.controls import choices_of
from vlm_pruner.web.gallery import Picture, gallery, read_upload
from vlm_pruner.web.jobs import Jobs
from vlm_pruner.web.service import Service
from vlm_pruner.web.settings import MAX_CHOICES, UPLOADED, Settings, address, python_lines

__all__ = ["COLUMNS", "Desk", "Frame", "Shared", "message_of"]

T = TypeVar("T")
log = logging.getLogger(__name__)

COLUMNS = 1 + MAX_CHOICES  # of answers: from all tokens, and of each method
LONGEST_QUESTION = 2000  # characters


@dataclass(frozen=True)
class Frame:
    """What changed on the page during a comparison."""

    cards: Mapping[int, str]  # column -> HTML
    status: str | None = None  # None = as it was
    alert: str = ""
    over: bool = False


@dataclass(frozen=True)
class Shared:
    """The settings in their other spellings."""

    link: str
    code: str


def message_of(error: Exception) -> str:
    """What to tell a visitor: our own errors as they are, others without their insides, which go to the log."""
    if isinstance(error, VlmPrunerError):
        return str(error)
    log.error("unexpected", exc_info=error)
    return f"Something went wrong on the server ({type(error).__name__}). The page goes on working; please try again."


class Desk:
    """One model, its visitors, and what they may ask for."""

    def __init__(self, service: Service) -> None:
        self.service, self.jobs = service, Jobs()
        self.budgets = Budgets(service.loaded, service.own)

    def upload(self, path: str) -> tuple[Picture | None, str]:
        """The picture or the video in an uploaded file, or None and why it cannot be used."""
        return self._guarded(lambda: self._fitted(read_upload(path)))

    def _fitted(self, picture: Picture) -> Picture:
        """As many frames of a video as the model is asked about, with what is to be said of them."""
        shown, said = self.service.loaded.reader.fitted(picture.image, sampled=False)
        if isinstance(shown, Clip):
            shown = dataclasses.replace(shown, notes=(*shown.notes, *said))
        return dataclasses.replace(picture, image=shown)

    def picture(self, key: str, uploaded: Picture | None) -> Picture:
        """The picture that a key names.

        Raises:
            InputError: the visitor's own picture is gone, or the key is unknown.
        """
        if key == UPLOADED:
            if uploaded is None:
                raise InputError("your picture is no longer here; upload it again")
            return uploaded
        if key not in gallery():
            raise InputError(f"there is no picture {key!r}; choose one of those shown")
        return gallery()[key]

    def restore(self, query: Mapping[str, list[str]]) -> tuple[Settings, str]:
        """The settings of a link and what could not be restored."""
        settings, problems = Settings.from_query(query, self.service.own)
        key = settings.picture or "demo"
        if key == UPLOADED:
            problems.append("a link cannot carry an uploaded picture: upload it again")
        elif key not in gallery():
            problems.append(f"there is no picture {key!r}")
        picture = gallery().get(key, gallery()["demo"])
        question = settings.question or picture.questions[0]
        restored = Settings(picture.key, question, settings.choices, settings.max_new_tokens)
        return restored, "; ".join(problems)

    def share(self, page: str, settings: Settings, file: str = "") -> Shared:
        """Link and lines of Python.

        Args:
            file: the name of the visitor's own picture or video.
        """
        lines = python_lines(self.service.loaded.name, settings, self.service.own, file)
        return Shared(address(page, settings), lines)

    def asked(self, question: str, before: Picture, now: Picture) -> str:
        """The question after another picture was chosen: what the visitor typed stays, a suggested one makes room."""
        typed = question.strip() and question not in before.questions
        return question if typed or question in now.questions else now.questions[0]

    def run(
        self, visitor: str, key: str, uploaded: Picture | None, question: str, rows: Sequence[object], tokens: int
    ) -> Iterator[Frame]:
        """The comparison, frame by frame; the last one has `over`. Never raises on what a visitor entered.

        What cannot be asked leaves the results of the last question as they are.
        """
        flag = self.jobs.begin(visitor)
        blank = dict.fromkeys(range(COLUMNS), "")
        try:
            picture = self.picture(key, uploaded)
            if len(question) > LONGEST_QUESTION:
                raise InputError(f"the question has {len(question)} characters; at most {LONGEST_QUESTION} are read")
            choices = choices_of(rows)
            board = Board(self.service.loaded, picture, question, choices, self.service.own)
            events = self.service.compare(picture.image, question, choices, max_new_tokens=tokens, stop=flag)
            first = next(events)  # the question was read
            yield Frame({**blank, **_cards(board)}, board.status)
            for event in chain((first,), events):
                changed = board.apply(event)
                yield Frame(_cards(board) if changed is None else {changed: board.card(changed)}, board.status)
            yield Frame({}, board.status, over=True)
        except Exception as error:
            yield Frame({}, alert=message_of(error), over=True)
        finally:
            self.jobs.end(visitor, flag)

    def _guarded(self, work: Callable[[], T]) -> tuple[T | None, str]:
        try:
            return work(), ""
        except Exception as error:
            return None, message_of(error)


def _cards(board: Board) -> dict[int, str]:
    return {number: board.card(number) for number in range(len(board.columns))}
