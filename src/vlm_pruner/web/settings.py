"""What a visitor chose, and its other spellings: a link, plans, lines of Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlencode

from vlm_pruner.asking import DEMO_IMAGE, EMBEDDED
from vlm_pruner.errors import InputError, PlanError
from vlm_pruner.methods.base import PruningMethod, create, method_class
from vlm_pruner.plan import Layer, PrunePlan, parse_layer

__all__ = [
    "MAX_CHOICES",
    "MAX_MEGABYTES",
    "MAX_TOKENS",
    "UPLOADED",
    "Choice",
    "Own",
    "Settings",
    "address",
    "python_lines",
]

MAX_CHOICES = 3
MAX_TOKENS = 512  # of an answer
MAX_MEGABYTES = 64  # of an uploaded file
UPLOADED = "uploaded"  # the picture of a visitor: a link cannot carry it

Own = Mapping[str, PruningMethod | PrunePlan]
"""What the server was started with: methods with parameters of their own, and plans by the names of their files."""


@dataclass(frozen=True)
class Choice:
    """One method to try."""

    method: str
    percent: float  # of the image's tokens that stay
    layer: Layer = None  # None: as the method prefers; 0: before the language model

    def plan(self, make: Callable[..., PrunePlan], own: Own = MappingProxyType({})) -> PrunePlan:
        """The plan of this choice; a finished one says itself how much.

        Args:
            make: what makes plans for a model: `Loaded.plan`.

        Raises:
            PlanError: an unknown method, or a budget or layer that the model cannot meet.
        """
        method = own.get(self.method, self.method)
        return make(method) if isinstance(method, PrunePlan) else make(method, self.percent / 100, self.layer)

    def title(self, own: Own = MappingProxyType({})) -> tuple[str, str]:
        """Name and budget for the head of a column."""
        if isinstance(own.get(self.method), PrunePlan):
            return self.method, "keeps what the plan says"
        return method_class(self.method).title, f"keeps {self.percent:g} % of the tokens"

    def to_text(self) -> str:
        """ "vlm-pruner,11,2": method, percent and, unless the method is to choose, the layer."""
        return f"{self.method},{self.percent:g}" + ("" if self.layer is None else f",{self.layer}")

    @classmethod
    def from_text(cls, text: str, own: Own = MappingProxyType({})) -> Choice:
        """Inverse of `to_text`.

        Raises:
            InputError: not method,percent,layer, or a share outside 1 to 100.
            PlanError: an unknown method.
        """
        name, *numbers = text.split(",")
        if name not in own:
            method_class(name)
        try:
            choice = cls(name, float(numbers[0]), parse_layer(numbers[1]) if numbers[1:] else None)
        except (ValueError, IndexError):
            raise InputError(f"{text!r} is not method,percent,layer as in 'vlm-pruner,11,2'") from None
        if not 1 <= choice.percent <= 100:
            raise InputError(f"{text!r} keeps {choice.percent:g} % of the tokens; 1 to 100 can be asked for")
        return choice


@dataclass(frozen=True)
class Settings:
    """Everything that a link to the page restores."""

    picture: str = ""  # key of a shipped picture, or UPLOADED
    question: str = ""
    choices: tuple[Choice, ...] = (Choice("vlm-pruner", 11), Choice("divprune", 11))
    max_new_tokens: int = 32

    def to_query(self) -> str:
        """The query string of a link, without its question mark."""
        fields = [("picture", self.picture), ("question", self.question), ("tokens", str(self.max_new_tokens))]
        return urlencode([*fields, *(("try", choice.to_text()) for choice in self.choices)], safe=",")

    @classmethod
    def from_query(cls, fields: Mapping[str, list[str]], own: Own = MappingProxyType({})) -> tuple[Settings, list[str]]:
        """The settings of a link and what could not be understood of it; whatever is missing stays at its default."""
        plain, problems, choices = cls(), [], []
        for text in fields.get("try", []):
            try:
                choices.append(Choice.from_text(text, own))
            except (InputError, PlanError) as error:
                problems.append(str(error))
        if len(choices) > MAX_CHOICES:
            problems.append(f"a link may try {MAX_CHOICES} methods, this one has {len(choices)}")
        tokens = fields.get("tokens", [str(plain.max_new_tokens)])[0]
        if not tokens.isdecimal() or not 1 <= int(tokens) <= MAX_TOKENS:
            problems.append(f"tokens={tokens!r} is not a number from 1 to {MAX_TOKENS}")
            tokens = str(plain.max_new_tokens)
        settings = cls(
            picture=fields.get("picture", [plain.picture])[0],
            question=fields.get("question", [plain.question])[0],
            choices=tuple(choices[:MAX_CHOICES]) or plain.choices,
            max_new_tokens=int(tokens),
        )
        return settings, problems


def address(page: str, settings: Settings) -> str:
    """The link that restores the settings; `page` is any address of the page itself, or empty where it is unknown."""
    return f"{page.split('?')[0].split('#')[0]}?{settings.to_query()}"


def python_lines(model: str, settings: Settings, own: Own = MappingProxyType({}), file: str = "") -> str:
    """A script that asks the same and runs as it is: the model and the question, then two lines for each choice.

    Args:
        file: the name of the visitor's own picture or video, which the script reads from the folder where it is run.
    """
    name = "" if model == EMBEDDED else repr(model)
    opening, picture = _picture(settings.picture, file)
    head = [
        "import vlm_pruner as vp",
        *opening,
        "",
        *_own_files(settings, own),
        f"loaded = open_model({name})",
        f"inputs = loaded.inputs({settings.question!r}, {picture})",
        "",
        "",
        "def answer():",
        f"    out = loaded.model.generate(**inputs, do_sample=False, max_new_tokens={settings.max_new_tokens})",
        '    said = out[0, inputs["input_ids"].shape[1] :]',
        "    return loaded.processor.decode(said, skip_special_tokens=True).strip()",
        "",
        "",
        'print("all tokens:", answer())',
    ]
    for choice in settings.choices:
        title, _ = choice.title(own)
        head += [
            f"with vp.prune(loaded.model, {_arguments(choice, own)}) as session:",
            f"    print({f'{title}:'!r}, answer(), session.report)",
        ]
    return "\n".join(head) + "\n"


def _picture(key: str, file: str) -> tuple[list[str], str]:
    """Lines that import what opens a picture, and the expression that does."""
    if key in ("", DEMO_IMAGE):
        return ["from vlm_pruner.asking import open_image, open_model"], f'open_image("{DEMO_IMAGE}")'
    if key == UPLOADED:
        return ["from vlm_pruner.asking import open_model, open_shown"], f"open_shown({file or 'uploaded.file'!r})"
    lines = ["from vlm_pruner.asking import open_model", "from vlm_pruner.web.gallery import gallery"]
    return lines, f"gallery()[{key!r}].image"


def _own_files(settings: Settings, own: Own) -> list[str]:
    """Lines that make methods known which are not of this package."""
    plain = [choice.method for choice in settings.choices if not isinstance(own.get(choice.method), PrunePlan)]
    homes = {method_class(name).__module__ for name in plain}
    files = sorted(f"{home}.py" for home in homes if not home.startswith("vlm_pruner."))
    return ["from vlm_pruner.methods import methods_from", *(f"methods_from({f!r})" for f in files)] if files else []


def _arguments(choice: Choice, own: Own) -> str:
    """What `vp.prune` is told beside the model."""
    method = own.get(choice.method, choice.method)
    if isinstance(method, PrunePlan):
        return f"vp.PrunePlan.from_json(open({choice.method!r}).read())"
    usual = create(choice.method).params()
    params = {} if isinstance(method, str) else {k: v for k, v in method.params().items() if v != usual[k]}
    layer = {} if choice.layer is None else {"layer": choice.layer}
    told = "".join(f", {name}={value!r}" for name, value in {**layer, **params}.items())
    return f'"{choice.method}", keep={choice.percent / 100:g}{told}'
