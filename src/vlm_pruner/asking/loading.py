"""How a checkpoint is loaded: version, device, dtype, attention, quantisation, and whether its own code may run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlm_pruner.errors import BackendUnavailableError, InputError, first_line, missing_package

if TYPE_CHECKING:
    import torch

__all__ = ["ATTENTION", "DTYPES", "QUANTIZE", "Loading", "open_device"]

DTYPES = ("float32", "bfloat16", "float16")  # as torch calls them
ATTENTION = ("sdpa", "eager", "flash_attention_2", "flex_attention")
QUANTIZE = ("4bit", "8bit")
DEVICE_MAPS = ("auto",)
GROUP = 32  # weights of torchao that share a scale at 4 bits


@dataclass(frozen=True)
class Loading:
    """What `from_pretrained` is told beside the name.

    Args:
        device: "auto" is CUDA where there is one, else the CPU; else whatever torch calls it.
        dtype: "auto" is the checkpoint's own; or float32, bfloat16, float16.
        revision: branch, tag or commit of a checkpoint on the hub; None is its main branch.
        attention: the attention backend, one of `ATTENTION`; None is the one that transformers prefers.
        device_map: "auto" spreads the layers over all devices (accelerate); None puts all on `device`.
        quantize: "4bit" or "8bit" weights, by bitsandbytes on CUDA and by torchao elsewhere; None leaves them.
        trust_remote_code: run the Python files that a checkpoint brings with it.

    Raises:
        InputError: a value that is not known, or two that exclude each other.
    """

    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    attention: str | None = None
    device_map: str | None = None
    quantize: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("dtype", self.dtype, ("auto", *DTYPES)),
            ("attention backend", self.attention, ATTENTION),
            ("device map", self.device_map, DEVICE_MAPS),
            ("quantisation", self.quantize, QUANTIZE),
        ):
            if value is not None and value not in known:
                raise InputError(f"unknown {name} {value!r}; known: {', '.join(known)}")
        if self.device_map is not None and self.device != "auto":
            raise InputError(f"device {self.device!r} and device map {self.device_map!r} exclude each other")

    @property
    def source(self) -> dict[str, Any]:
        """Arguments of every `from_pretrained`: of the configuration, the processor and the model."""
        version = {} if self.revision is None else {"revision": self.revision}
        return {**version, "trust_remote_code": self.trust_remote_code}

    def load(self, name: str, config: Any) -> Any:
        """The model of a checkpoint, its weights in their place, in eval mode.

        Raises:
            InputError: no such device, or weights that are quantised already.
            OSError: no weights as safetensors; those in pickles are not read.
            BackendUnavailableError: a package that quantises is not installed.
        """
        import torch
        from transformers import AutoModelForImageTextToText

        from vlm_pruner.models.renamed import renamed

        place = open_device(self.device)
        kind = "auto" if self.dtype == "auto" else getattr(torch, self.dtype)
        given = {**self.source, "dtype": kind, "use_safetensors": True}  # no pickles
        if self.attention is not None:
            given["attn_implementation"] = self.attention
        quantised = getattr(config, "quantization_config", None) is not None
        if self.quantize is not None:
            if quantised:
                raise InputError(f"the weights of {name!r} are quantised already: leave out {self.quantize!r}")
            given["quantization_config"] = _quantisation(self.quantize, place)
        other = renamed(config.architectures)
        load = AutoModelForImageTextToText.from_pretrained if other is None else other.load
        if self.device_map is not None:
            return load(name, device_map=self.device_map, **given).eval()
        if quantised or self.quantize is not None:  # such weights are put in their place as they load
            return load(name, device_map={"": str(place)}, **given).eval()
        return load(name, **given).to(place).eval()


def open_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, else the CPU.

    Raises:
        InputError: no such device, or none that works here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used here: {first_line(error)}") from error
    return device


def _quantisation(bits: str, place: torch.device) -> Any:
    """The configuration of transformers that quantises weights while they load."""
    package = "bitsandbytes" if place.type == "cuda" else "torchao"
    try:
        return _bitsandbytes(bits) if package == "bitsandbytes" else _torchao(bits)
    except ImportError as error:
        what = f"{bits} on {place.type}"
        needed = missing_package(what, error)
        raise needed or BackendUnavailableError(f"{what} needs another {package}: {first_line(error)}") from error


def _bitsandbytes(bits: str) -> Any:
    import bitsandbytes  # noqa: F401  # transformers tells that it is missing only after it has read all weights
    import torch
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16, bnb_4bit_quant_type="nf4")


def _torchao(bits: str) -> Any:
    import torch
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup
    from transformers import TorchAoConfig

    if bits == "8bit":
        return TorchAoConfig(Int8WeightOnlyConfig())
    four: Any = getattr(torch, "int4")  # noqa: B009  # which the stubs lack
    return TorchAoConfig(IntxWeightOnlyConfig(weight_dtype=four, granularity=PerGroup(GROUP)))
