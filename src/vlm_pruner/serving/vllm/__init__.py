"""Image tokens pruned inside vLLM, by its plugin interface: nothing of vLLM is changed on the disk.

A server is told by `--hf-overrides '{"vlm_pruner": {"method": "vlm-pruner", "keep": 0.25}}'`, a request by
`mm_processor_kwargs={"vlm_pruner": {"keep": 0.5}}`. The scheduler must know how many tokens a picture takes before the
picture is encoded, so counts depend on the picture's size alone, and are exact.
"""

from vlm_pruner.serving.vllm.wanted import KEY, kept_of, plan_of

__all__ = ["KEY", "kept_of", "plan_of", "register"]


def register() -> None:
    """Entry point of `vllm.general_plugins`: called in every process of vLLM before a model is looked up."""
    from vlm_pruner.serving.vllm.registering import register_all

    register_all()
