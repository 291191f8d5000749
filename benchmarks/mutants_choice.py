"""Deliberate breaks of the ops and the methods, as those of the engine in `benchmarks/mutants.py`."""

from __future__ import annotations

from benchmarks.mutants import Mutant

__all__ = ["CHOICE"]

_CONTRACT = "methods/test_contract.py -k "

CHOICE = (
    # Pivots
    Mutant("growth starts from the smallest keys", "ops/pivots/torch.py", "[norm.argmax()[None]]",
           "[norm.argmin()[None]]", "ops/pivots"),
    Mutant("a pivot is far from the last one only", "ops/pivots/torch.py",
           "nearest.minimum(apart.nan_to_num_(nan=0.0)).index_fill_", "apart.nan_to_num_(nan=0.0).index_fill_",
           "ops/pivots"),
    Mutant("rounding decides about a pivot", "ops/pivots/torch.py",
           "return top.indices[:1] if best - second > rounding else None", "return top.indices[:1]", "ops/pivots"),
    Mutant("squares of keys overflow", "ops/pivots/torch.py", "if not _needs_no_scaling(norm.amax()):", "if False:",
           "ops/pivots"),
    Mutant("a kernel forgets a pivot's distance", "ops/pivots/triton.py",
           "score = lower(near, score, token, real, pivot)", "score = score", "ops/pivots"),
    # Screening
    Mutant("the channels of least variance stay", "ops/screen/torch.py", "score >= score.kthvalue",
           "score <= score.kthvalue", "ops/screen"),
    Mutant("a zero row is divided by its length", "ops/screen/torch.py",
           "if _PLAIN[0] < float(shortest) and float(longest) < _PLAIN[1]:", "if float(longest) < _PLAIN[1]:",
           "ops/screen"),
    Mutant("a tie between channels keeps too many", "ops/screen/torch.py", "if len(found) == count:",
           "if len(found) >= count:", "ops/screen"),
    # Growth
    Mutant("a dropped token goes to the later of two equals", "ops/growth/torch.py", "(most > self.similarity)",
           "(most >= self.similarity)", "ops/growth"),
    Mutant("a block begins at its first redundant token", "ops/growth/torch.py",
           "begin + int(below[0]) // width * width", "begin + int(below[0])", "ops/growth"),
    Mutant("the last block enters by redundancy", "ops/growth/torch.py", "members[np.sort(least)]", "members[least]",
           "ops/growth"),
    Mutant("a newline is one token away from all others", "ops/growth/torch.py",
           "np.where(np.isinf(self.near), np.float32(0), self.near)",
           "np.where(np.isinf(self.near), np.float32(1), self.near)", "ops/growth"),
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
    # Merging
    Mutant("a survivor without dropped tokens shrinks", "ops/merge/torch.py",
           "torch.full_like(total, self_weight).where(received, 1.0)", "torch.full_like(total, self_weight)",
           "ops/merge"),
    Mutant("a survivor counts among the dropped", "ops/merge/torch.py", "weight.index_fill(0, index, 0.0)",
           "weight.clone()", "ops/merge"),
    # Max-min diversity and facility location
    Mutant("diversity looks at the last token only", "ops/maxmin/torch.py", "        covered = covered.maximum(row)\n",
           "        covered = row.clone()\n", "ops/maxmin"),
    Mutant("a bound as good as the best is out", "ops/maxmin/torch.py", "(bound <= best) & ~exact",
           "(bound < best - 1e-3) & ~exact", "ops/maxmin"),
    Mutant("coverage is that of the last token", "ops/facility/torch.py",
           "torch.maximum(reached, cover.index_select(0, best).squeeze(0))", "cover.index_select(0, best).squeeze(0)",
           "ops/facility"),
    # What every method keeps to
    Mutant("autocast reaches a choice", "methods/base.py", "on = torch.amp.is_autocast_available(device) and",
           "on = False and", f"{_CONTRACT}'autocast and divprune'"),
    Mutant("a kernel works in torch's default dtype", "ops/maxmin/triton.py",
           "(torch.empty(batch, n, dtype=torch.float32, device=device) for _ in range(4))",
           "(torch.empty(batch, n, device=device) for _ in range(4))", f"{_CONTRACT}'default_dtype and divprune'"),
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
