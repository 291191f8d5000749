"""Options of every command that prunes, beside methods and budgets: a plan, parameters, methods of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vlm_pruner.budget import Keep, parse_keep
from vlm_pruner.cli.files import present
from vlm_pruner.cli.parameters import parse_parameters
from vlm_pruner.errors import InputError

if TYPE_CHECKING:
    from vlm_pruner.asking import Loaded
    from vlm_pruner.evaluation.by_density import DensityPlans
    from vlm_pruner.methods import PruningMethod
    from vlm_pruner.plan import Per, PrunePlan

__all__ = ["AUTO", "Pruning", "Wanted"]

AUTO = "auto"
"""A budget that is that of the picture's group, of plans that were tuned for each."""


@dataclass(frozen=True)
class Wanted:
    """One pruning that was asked for."""

    name: str  # "divprune 64", "plan.json"
    keep: Keep
    make: Callable[[Loaded], PrunePlan]  # the plan for a model; raises PlanError


@dataclass(frozen=True)
class Pruning:
    """The options, and what they and the command's own ones say together."""

    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", help="JSON file with a finished plan, in place of --method, --keep and --layer."),
    ] = None
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", help="Parameter of a method: name=value or method.name=value; may be repeated."),
    ] = None
    methods_from: Annotated[
        list[Path] | None,
        typer.Option("--methods-from", help="Python file with your own methods; its code is run; may be repeated."),
    ] = None

    def __post_init__(self) -> None:
        """Look for the files before anything is imported for them.

        Raises:
            InputError: one is not there.
        """
        present(self.plan_file, "plan")
        for file in self.methods_from or ():
            present(file, "file of methods")

    def register(self) -> None:
        """Make the methods of `--methods-from` known; to be called before a method is named.

        Raises:
            InputError, PlanError: as of `methods_from`.
        """
        if self.methods_from is None:
            return
        from vlm_pruner.methods import methods_from

        for file in self.methods_from:
            methods_from(file)

    def wanted(
        self,
        methods: Sequence[str] | None,
        keeps: Sequence[Keep] | None,
        layer: str | None,
        *,
        default: tuple[Sequence[str], Sequence[Keep]],
        option: str = "method",
        per: str = "image",
        bias: str | None = None,
    ) -> list[Wanted]:
        """Every method at every budget, or the plan alone. What can be told before the model is there is told now.

        Args:
            methods, keeps, layer: as given; None where they were not.
            default: methods and budgets where none were given.
            option: that names the methods.
            per: what has a budget of its own, an image (a whole video, too) or every frame of a video.
            bias: of every stage, as given.

        Raises:
            InputError: a plan beside something that it says itself, or one that cannot be read.
            PlanError: no plan, or an unknown method, parameter or bias.
        """
        from vlm_pruner.plan import parse_bias, parse_layer

        if per not in ("image", "frame"):
            raise InputError(f"--per is image or frame, not {per!r}")
        whole = cast("Per", per)
        beside = {option: methods, "keep": keeps, "layer": layer, "per": None if per == "image" else per, "bias": bias}
        plan = self.plan(**beside)
        if plan is not None:
            return [Wanted(self.named, plan.nominal, lambda loaded: loaded.plan(plan))]

        place, logits = None if layer is None else parse_layer(layer), parse_bias(bias)

        def make(method: PruningMethod, keep: Keep) -> Callable[[Loaded], PrunePlan]:
            return lambda loaded: loaded.plan(method, keep, place, per=whole, bias=logits)

        chosen = self.methods(methods or default[0])
        budgets = keeps or default[1]
        return [Wanted(f"{name} {k}", k, make(method, k)) for name, method in chosen.items() for k in budgets]

    def single(
        self,
        method: str | None,
        keep: str | None,
        layer: str | None,
        usual: Keep,
        per: str = "image",
        bias: str | None = None,
    ) -> Wanted:
        """The one pruning of a command that takes a method and a budget; by default VLM-Pruner's, at `usual`.

        Raises:
            InputError, PlanError: as of `wanted`.
        """
        methods, keeps = None if method is None else [method], None if keep is None else [parse_keep(keep)]
        (only,) = self.wanted(methods, keeps, layer, default=(["vlm-pruner"], [usual]), per=per, bias=bias)
        return only

    def plan(self, **given: Any) -> PrunePlan | None:
        """The plan of `--plan`, None without one.

        Args:
            given: options by name that it excludes; None where they were not given.

        Raises:
            InputError, PlanError: as of `wanted`.
        """
        if self.plan_file is None:
            return None
        from vlm_pruner.evaluation.by_density import is_by_density
        from vlm_pruner.plan import PrunePlan

        text = self._read(**given)
        if is_by_density(text):
            raise InputError(
                f"{str(self.plan_file)!r} has a plan for each group of pictures: only `ask --keep auto` reads it"
            )
        return PrunePlan.from_json(text)

    def by_density(self, keep: str | None, **given: Any) -> DensityPlans | None:
        """The plans of `--plan`, one for each group of pictures, if `keep` is "auto"; else None.

        Args:
            given: as of `plan`.

        Raises:
            InputError: "auto" without such a file, or as of `plan`.
            PlanError: the file holds something else.
        """
        if keep != AUTO:
            return None
        if self.plan_file is None:
            raise InputError("--keep auto needs --plan FILE.auto.json, a file that `vlm-pruner tune` writes")
        from vlm_pruner.evaluation.by_density import DensityPlans, is_by_density

        text = self._read(**given)
        if not is_by_density(text):
            raise InputError(
                f"--keep auto: {str(self.plan_file)!r} is not what `tune` writes as FILE.auto.json; a plan is taken "
                "without --keep"
            )
        return DensityPlans.from_json(text)

    def _read(self, **given: Any) -> str:
        assert self.plan_file is not None
        beside = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
        beside += ["--set"] if self.parameters else []
        if beside:
            raise InputError(f"--plan says which methods, how much, where and how: leave out {', '.join(beside)}")
        try:
            return self.plan_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise InputError(f"the plan {str(self.plan_file)!r} cannot be read: {why}") from error

    def methods(self, names: Sequence[str]) -> Mapping[str, PruningMethod]:
        """The methods of these names, with the parameters of `--set`.

        Raises:
            PlanError: an unknown method, a parameter that none of them has, or a value that it does not take.
        """
        from vlm_pruner.methods import create

        known = self.set_on(names)
        return {name: create(name, **known.get(name, {})) for name in names}

    def labelled(self, names: Sequence[str]) -> dict[str, str | PruningMethod]:
        """The same for a table, whose rows may also be named "none", "blind" or "downsample".

        Raises:
            PlanError: as of `methods`.
        """
        from vlm_pruner.methods import create

        known = self.set_on(names)
        return {name: create(name, **known[name]) if name in known else name for name in names}

    def set_on(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The parameters of `--set` by method, for those of `names` that have any.

        Raises:
            PlanError: as of `methods`.
        """
        return parse_parameters(self.parameters or (), names)

    def configured(self) -> dict[str, PruningMethod | PrunePlan]:
        """The methods of `--set`, for a command that offers all: method.name=value.

        Raises:
            PlanError: as of `methods`.
        """
        from vlm_pruner.methods import registry

        known = self.set_on(list(registry()))
        return dict(self.methods(list(known)) if known else {})

    @property
    def named(self) -> str:
        """What tables call the plan: the name of its file."""
        return "" if self.plan_file is None else self.plan_file.name
