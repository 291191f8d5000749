# %% [markdown]
# # First steps
# A model answers a question about an image from 64 of its 576 visual tokens. Everything here runs on the
# processor of a laptop and downloads nothing: the package contains a small model and an image.

# %%
from PIL import Image

import vlm_pruner as vp
from vlm_pruner import scenes, viz

model, processor = vp.load_embedded()
image = Image.open(scenes.DEMO)
image.resize((240, 240))

# %% [markdown]
# The model is a stock `LlavaForConditionalGeneration`, the prompt is made as for any other checkpoint. The unpruned
# answer first:


# %%
def inputs_for(question: str):
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(text=[prompt], images=[image], return_tensors="pt")


def answer(inputs) -> str:
    ids = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    return processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


inputs = inputs_for("What is the word?")
answer(inputs)

# %% [markdown]
# Now with 64 tokens. Inside the block the model prunes; after the block, it is as it was before.

# %%
with vp.prune(model, "vlm-pruner", keep=64) as session:
    text = answer(inputs)
text

# %% [markdown]
# In a notebook, a session shows the report and a map of the kept tokens. The brightest tokens were chosen first.

# %%
session

# %% [markdown]
# The same on the image. `session.images` has one record for every image of the last prompt.

# %%
record = session.images[0]
window = viz.image_window(processor, image.size)
layout = viz.Layout.of(image.size, record.grid, record.position, window=window)
viz.overlay(image, layout, record.selection, title="VLM-Pruner, 64 tokens", width=420).quantize(64)

# %% [markdown]
# `vlm-pruner methods` lists all methods. They are used by name, with their own parameters if you like:

# %%
for name in ("vlm-pruner", "divprune", "grid", "random"):
    with vp.prune(model, name, keep=64) as session:
        print(f"{name:12} {answer(inputs):8} {session.report}")

# %% [markdown]
# A plan says the same as data: which method prunes, where, and how many tokens it keeps. It can be written as JSON, and
# it can have several stages.

# %%
plan = vp.PrunePlan(
    (
        vp.Stage("divprune", keep=192),  # before the language model
        vp.Stage("vlm-pruner", keep=64, layer=4),  # of what is left, before decoder layer 4
    )
)
assert vp.PrunePlan.from_json(plan.to_json()) == plan
with vp.prune(model, plan) as session:
    print(answer(inputs), "·", session.report)

# %% [markdown]
# In a server, a `with` block is impractical. `attach` prunes every call until you detach it.

# %%
session = vp.attach(model, "vlm-pruner", keep=0.25)
print(answer(inputs_for("What color is the ring?")), "·", session.report)
session.detach()
