"""Where there is no GPU, Triton's kernels run in its interpreter. Numba's loops are compiled anew for each run."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import torch

if not torch.cuda.is_available():  # before anything imports Triton, whose own functions are made for one or the other
    os.environ.setdefault("TRITON_INTERPRET", "1")
    torch.set_num_threads(1)  # a batch is shared out over them, and the interpreter is of one thread
if "NUMBA_CACHE_DIR" not in os.environ:  # kept code is not made anew when a loop that it calls has changed
    os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="vlm_pruner_numba_")
    atexit.register(shutil.rmtree, os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)
