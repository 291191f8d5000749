"""Deliberate breaks of the ops and the methods, as those of the engine in `benchmarks/mutants.py`."""

from __future__ import annotations

from benchmarks.mutants import Mutant

__all__ = ["CHOICE"]

_RANDOM = "ops/test_random_choices.py -k "
_CONTRACT = "methods/test_contract.py -k "

CHOICE = (
    # Pivots
    Mutant("a pivot is far from the last one only", "ops/pivots/torch.py",
           "nearest.minimum(apart.nan_to_num_(nan=0.0)).index_fill_", "apart.nan_to_num_(nan=0.0).index_fill_",
           "ops/pivots"),
    Mutant("a kernel forgets a pivot's distance", "ops/pivots/triton.py",
           "score = lower(near, score, token, real, pivot)", "score = score", "ops/pivots"),
    Mutant("a loop goes by the last pivot alone", "ops/pivots/numba.py", "np.fmin(nearest, ", "np.fmin(np.inf, ",
           "ops/pivots"),
    # Screening
    Mutant("a loop forgets the last rows", "ops/screen/numba.py", "range(end - (end - start) % 8, end)",
           "range(end, end)", "ops/screen"),
    # Growth
    Mutant("a dropped token goes to the later of two equals", "ops/growth/torch.py", "(most > self.similarity)",
           "(most >= self.similarity)", "ops/growth"),
    Mutant("a block begins at its first redundant token", "ops/growth/torch.py",
           "begin + int(below[0]) // width * width", "begin + int(below[0])", "ops/growth"),
    Mutant("the last block enters by redundancy", "ops/growth/torch.py", "members[np.sort(least)]", "members[least]",
           "ops/growth"),
    Mutant("a kept token is judged again", "ops/growth/torch.py", "self.score[self.order[:size]] = np.inf",
           "self.score[members] = np.inf", "ops/growth"),
    Mutant("distance makes a token less redundant", "ops/growth/torch.py", "self.score += 1", "self.score -= 1",
           "ops/growth"),
    Mutant("a device goes by the last kept token alone", "ops/growth/masked.py",
           "self.near = torch.minimum(self.near, apart.amin(1))", "self.near = apart.amin(1)", "ops/growth"),
    Mutant("a device fills no more than its block", "ops/growth/masked.py",
           "better < (self.keep - self.size)[:, None]", "better < self.keep", "ops/growth"),
    Mutant("a kernel's last block ignores the room", "ops/growth/kernels.py",
           "return fits & (tl.sum(ahead.to(tl.int32), 1) < room)", "return fits", "ops/growth"),
    Mutant("a kernel gives a dropped token to the later of two equals", "ops/growth/kernels.py",
           "tl.where(best > similarity, which", "tl.where(best >= similarity, which", "ops/growth"),
    Mutant("a loop goes by the last kept token alone", "ops/growth/numba.py",
           "near[i] = min(near[i], dy * dy + dx * dx + dt * dt)", "near[i] = dy * dy + dx * dx + dt * dt",
           "ops/growth"),
    Mutant("a loop's last block ignores the room", "ops/growth/numba.py", '.argsort(kind="stable")[: keep - sizes[0]]',
           '.argsort(kind="stable")[sizes[0] - keep :]', "ops/growth"),
    Mutant("a loop judges a kept token again", "ops/growth/numba.py", "for token in state.order[: sizes[0]]:",
           "for token in state.order[:0]:", "ops/growth"),
    Mutant("a loop rules out products by the difference of two angles", "ops/growth/numba.py",
           "one * other - np.sqrt", "one * other + np.sqrt", "ops/growth"),
    Mutant("a loop looks at one strip of kept tokens alone", "ops/growth/numba.py",
           "state.most[row, column // _STRIP] = max(", "state.most[row, 0] = max(", "ops/growth"),
    # Merging
    Mutant("a survivor without dropped tokens shrinks", "ops/merge/torch.py",
           "torch.full_like(total, self_weight).where(received, 1.0)", "torch.full_like(total, self_weight)",
           "ops/merge"),
    Mutant("a survivor counts among the dropped", "ops/merge/torch.py", "weight.index_fill(0, index, 0.0)",
           "weight.clone()", "ops/merge"),
    Mutant("a survivor counts among the dropped of a loop", "ops/merge/numba.py", "    share[index] = 0\n", "",
           "ops/merge"),
    Mutant("a loop reads a number of half precision wrong", "ops/loops.py", "np.uint32(np.uint32(x) << 16)",
           "np.uint32(np.uint32(x) << 15)", "ops/test_loops.py ops/merge"),
    # Batches
    Mutant("images come back in the order in which threads are done", "ops/threads.py",
           "for a, b in pairwise(cuts)]", "for a, b in list(pairwise(cuts))[::-1]]", "ops/test_threads.py"),
    Mutant("a thread forgets the backend", "ops/threads.py", "copy_context().run, work", "work",
           "ops/test_threads.py"),
    Mutant("torch keeps one thread after a batch", "ops/threads.py", "torch.set_num_threads(before)", "pass",
           "ops/test_threads.py"),
    # Max-min diversity and facility location
    Mutant("a token met the last four alone", "ops/maxmin/numba.py", "begin = known[token]",
           "begin = max(known[token], count - 4)", "ops/maxmin"),
    Mutant("two of four tokens are one", "ops/loops.py", "tokens[min(2, last)]", "tokens[min(1, last)]",
           "ops/maxmin ops/dpp"),
    Mutant("a kernel forgets the weights", "ops/maxmin/triton.py", "if WEIGHTED:", "if False:", "ops/maxmin"),
    Mutant("a kernel forgets where to start", "ops/maxmin/triton.py", "-1 if start is None else start", "-1",
           "ops/maxmin"),
    Mutant("a volume that is out of date counts", "ops/dpp/numba.py", "if known[token] == count:",
           "if known[token] > 0 or count == 0:", "ops/dpp"),
    Mutant("a kernel forgets half of the factor", "ops/dpp/triton.py", "for begin in range(0, known, ROWS):",
           "for begin in range(0, known - 1, ROWS):", "ops/dpp"),
    Mutant("a gain that is out of date counts", "ops/facility/numba.py", "if known[token] == count:",
           "if known[token] >= 0:", "ops/facility"),
    Mutant("a loop forgets what candidates count", "ops/facility/numba.py", "gain *= candidates[token]", "pass",
           "ops/facility"),
    Mutant("what is kept comes in the order of selection", "methods/_order.py", "orders.sort(1).values", "orders",
           "methods/test_divprune.py"),
    Mutant("the start is not drawn", "methods/fps.py", ", start=start", "", "methods/test_fps.py"),
    Mutant("relevance is not of the features' lengths", "methods/cdpruner.py", "w * inverse_norms(t.features)", "w",
           "methods/test_cdpruner.py"),
    # What every method keeps to
    Mutant("autocast reaches a choice", "methods/base.py", "on = torch.amp.is_autocast_available(device) and",
           "on = False and", f"{_CONTRACT}'autocast and (apet or tome or visionzip)'"),
    Mutant("random tokens are drawn where torch's default is", "methods/random.py", ', device="cpu")', ")",
           f"{_CONTRACT}'default_device and random'"),
    Mutant("more tokens are asked for than there are", "methods/base.py", "if not 1 <= keep <= n:",
           "if not 1 <= keep:", f"{_CONTRACT}'refused and grid'"),
    # VLM-Pruner's own
    Mutant("a kept token represents another one", "methods/vlm_pruner.py",
           "slot.gather(1, owner).scatter_(1, order, slot)", "slot.gather(1, owner)", "methods/test_vlm_pruner.py"),
    Mutant("rows of two survivors are exchanged", "methods/vlm_pruner.py", "slot = position.argsort(1)",
           "slot = position", "methods/test_vlm_pruner.py"),
    Mutant("given places span no box", "methods/vlm_pruner.py", "(last[1] + 1).square()", "last[1].square()",
           "methods/test_vlm_pruner.py"),
    Mutant("time does not count", "methods/vlm_pruner.py", "torch.stack([frame * temporal_scale, y, x], 1)",
           "torch.stack([frame, y, x], 1)", "methods/test_vlm_pruner.py"),
)  # fmt: skip
