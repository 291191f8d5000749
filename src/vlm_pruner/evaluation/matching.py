"""How far an answer is right: exactly, as VQA compares answers, or by edit distance (ANLS)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from vlm_pruner.errors import InputError, unknown_name

__all__ = ["MATCHES", "Match", "anls", "exact", "match_named", "normalised", "plain_words"]

Match = Callable[[str, Sequence[str]], float]
"""(answer, accepted answers) -> 0 to 1."""

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = {"none": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7"}
_NUMBERS |= {"zero": "0", "eight": "8", "nine": "9", "ten": "10"}
_ARTICLES = ("a", "an", "the")
_LEAST = 0.5  # a similarity below it counts nothing


def exact(answer: str, accepted: Sequence[str]) -> float:
    """1 where the answer is one of the accepted, letter by letter; blanks around it do not count."""
    return float(answer.strip() in [one.strip() for one in accepted])


def normalised(answer: str, accepted: Sequence[str]) -> float:
    """1 where the answer is one of the accepted in `plain_words`."""
    return float(plain_words(answer) in [plain_words(one) for one in accepted])


def anls(answer: str, accepted: Sequence[str]) -> float:
    """Similarity to the nearest accepted answer, 1 - edits / letters of the longer; 0 where it is below a half.

    Letters are compared in lower case, and any blank is one blank. Source: arXiv:1905.13648, section 5 (ST-VQA).
    """
    best = max((_similarity(_spaced(answer), _spaced(one)) for one in accepted), default=0.0)
    return best if best >= _LEAST else 0.0


MATCHES: dict[str, Match] = {"exact": exact, "normalised": normalised, "anls": anls}


def match_named(name: str) -> Match:
    """The matching of that name.

    Raises:
        InputError: there is none.
    """
    if name not in MATCHES:
        raise InputError(unknown_name("matching", name, MATCHES))
    return MATCHES[name]


def plain_words(text: str) -> str:
    """An answer as VQA compares it: lower case, no punctuation, digits for number words, no articles.

    Apostrophes are dropped, so that "dont" and "don't" are one word without a list of contractions. Source: the
    evaluation code of arXiv:1505.00468.
    """
    text = _spaced(text)
    commas = re.search(r"\d,\d", text) is not None
    for mark in _MARKS:
        free = f"{mark} " in text or f" {mark}" in text or commas
        text = text.replace(mark, "" if free else " ")
    text = re.sub(r"\.(?!\d)", "", text).replace("'", "").replace("’", "")
    words = (_NUMBERS.get(word, word) for word in text.split())
    return " ".join(word for word in words if word not in _ARTICLES)


def _spaced(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(a: str, b: str) -> float:
    longest = max(len(a), len(b))
    return 1.0 if longest == 0 else 1.0 - _edits(a, b) / longest


def _edits(a: str, b: str) -> int:
    """Letters to insert, delete or exchange on the way from one to the other (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]
