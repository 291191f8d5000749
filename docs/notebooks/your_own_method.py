# %% [markdown]
# # Write your own method
# A method only says which tokens are kept. The library does the rest: masks, positions, caches, budgets, batches and
# model families. Let us write a method that keeps the tokens that differ most from their neighbours. There, the image
# has edges, writing and small things.

# %%
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from PIL import Image

import vlm_pruner as vp
from vlm_pruner import scenes
from vlm_pruner.methods.base import PruningMethod

# %% [markdown]
# A method is a frozen dataclass. Its fields are its parameters, and its class attributes name it. `select` gets the
# tokens of one image and returns exactly `keep` of them. `features` and the positions are always there; a method that
# reads more says so in `needs`.


# %%
@final
@dataclass(frozen=True)
class Edges(PruningMethod):
    """Tokens that differ most from the mean of the tokens around them."""

    name: ClassVar[str] = "edges"
    title: ClassVar[str] = "Edges"
    source: ClassVar[str] = "this notebook"

    reach: int = 1  # cells

    def select(self, tokens: vp.VisualTokens, keep: int) -> vp.Selection:
        t, h, w = tokens.grid
        plane = tokens.features.float().reshape(t, h, w, -1).permute(0, 3, 1, 2)  # [t, d, h, w]
        side = 2 * self.reach + 1
        around = torch.nn.functional.avg_pool2d(plane, side, 1, self.reach, count_include_pad=False)
        score = (plane - around).norm(dim=1).flatten()  # [n]
        order = score.sort(descending=True, stable=True).indices[:keep]
        return vp.Selection(index=order.sort().values, order=order)


# %% [markdown]
# Try it without a model first. In a notebook, a selection shows one mark for every kept token.

# %%
tokens = vp.VisualTokens(features=torch.randn(576, 32, generator=torch.Generator().manual_seed(0)), grid=(1, 24, 24))
Edges().select(tokens, keep=64).validate(total=576, keep=64)

# %% [markdown]
# Now in a model, like any built-in method.

# %%
model, processor = vp.load_embedded()
image = Image.open(scenes.DEMO)


def ask(question: str, method: str | PruningMethod, keep: int) -> tuple[str, vp.Session]:
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=[prompt], images=[image], return_tensors="pt")
    with vp.prune(model, method, keep=keep) as session:
        ids = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    return processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip(), session


text, session = ask("What is the yellow object?", Edges(reach=1), keep=64)
print(text)
session

# %% [markdown]
# Is it any good? Six questions tell nothing; they only show how to ask. `vlm-pruner bench` asks thousands.

# %%
for name, method in (("edges", Edges()), ("vlm-pruner", "vlm-pruner"), ("random", "random")):
    answers = [ask(question, method, 64)[0] for question, _ in scenes.DEMO_QUESTIONS]
    right = sum(text == truth for text, (_, truth) in zip(answers, scenes.DEMO_QUESTIONS, strict=True))
    print(f"{name:11} {right} of {len(answers)} right: {', '.join(answers)}")

# %% [markdown]
# To give it a name that every command knows, either add the file to `src/vlm_pruner/methods/` with a test beside it
# (the registry finds it, and the contract tests run on it by themselves), or publish it from your own package:
#
# ```toml
# [project.entry-points."vlm_pruner.methods"]
# edges = "my_package.edges"
# ```
