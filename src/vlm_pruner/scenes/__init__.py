"""The offline benchmark: photographs, pictograms and writing, with questions and boxes that hold their evidence.

from vlm_pruner import scenes
for question in scenes.load_split("test", limit=4):
    question.images, question.text, question.answer, question.type, question.chance, question.evidence
    scenes.score(question, "red"), scenes.evidence_tokens(question)
"""

from .demo import DEMO, DEMO_QUESTIONS, demo_scene
from .layout import Scene, sample_scene
from .questions import TYPES
from .render import render
from .scoring import box_tokens, evidence_tokens, right, score
from .splits import PER_TYPE, SPLITS, VERSION, Question, fingerprint, load_split

__all__ = [
    "DEMO",
    "DEMO_QUESTIONS",
    "PER_TYPE",
    "SPLITS",
    "TYPES",
    "VERSION",
    "Question",
    "Scene",
    "box_tokens",
    "demo_scene",
    "evidence_tokens",
    "fingerprint",
    "load_split",
    "render",
    "right",
    "sample_scene",
    "score",
]
