"""There is no network. Where there is no GPU, Triton's kernels run in its interpreter."""

from __future__ import annotations

import os

import torch
from tests.support.network import block
from tests.support.vision import prepare

block()
prepare()  # torchvision, before anything imports transformers

if not torch.cuda.is_available():  # before anything imports Triton, whose own functions are made for one or the other
    os.environ.setdefault("TRITON_INTERPRET", "1")
    torch.set_num_threads(1)  # a batch is shared out over them, and the interpreter is of one thread
