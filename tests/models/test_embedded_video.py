"""The video form of the embedded model: a stock class, weights taken over, training code and `generate` agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import VideoLlavaForConditionalGeneration

import vlm_pruner as vp
from vlm_pruner.asking import EMBEDDED_VIDEO, Loaded, open_model
from vlm_pruner.asking.prompts import read_prompt
from vlm_pruner.evaluation.videos import ask_motion
from vlm_pruner.models.embedded import load_embedded
from vlm_pruner.models.embedded.tokenizer import build_tokenizer, pieces
from vlm_pruner.models.embedded.train.decoder import answer
from vlm_pruner.models.embedded.train.video import TOTAL, draw_drafts, draw_sample, frames_of, pack, tower_frames
from vlm_pruner.models.embedded.video import CORNER, FRAME_GRID, from_pictures
from vlm_pruner.scenes.motion import sample_motion
from vlm_pruner.scenes.motion_questions import MOTION
from vlm_pruner.scenes.motion_splits import load_motion_split


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return open_model(EMBEDDED_VIDEO)


def test_it_is_a_stock_class_that_takes_videos(loaded):
    assert type(loaded.model) is VideoLlavaForConditionalGeneration
    assert loaded.reader.takes_videos
    assert loaded.layers == 8


def test_it_starts_from_the_picture_model():
    stills = load_embedded()[0]
    model = from_pictures(stills)
    old, new = stills.state_dict(), model.state_dict()
    for name in ("model.language_model.layers.5.mlp.up_proj.weight", "model.multi_modal_projector.linear_1.weight"):
        assert torch.equal(old[name], new[name])
    layer = "encoder.layers.4.self_attn.q_proj.weight"
    for tower in ("image_tower", "video_tower"):
        assert torch.equal(old[f"model.vision_tower.{layer}"], new[f"model.{tower}.{layer}"])
    words = len(pieces())
    assert torch.equal(old["lm_head.weight"][:words], new["lm_head.weight"][:words])
    place = "embeddings.position_embedding.weight"
    grid = old[f"model.vision_tower.{place}"][1:].view(24, 24, -1)
    row, column = 2, 5
    expected = grid[CORNER + row, CORNER + column]
    assert torch.equal(new[f"model.video_tower.{place}"][1 + row * FRAME_GRID + column], expected)


def test_words_of_questions_are_one_piece_each():
    tokenizer = build_tokenizer(True)
    assert len(tokenizer) == len(pieces(True)) <= 256
    assert pieces(True)[: len(pieces())] == pieces()
    rng = np.random.default_rng(1)
    for _ in range(40):
        motion = sample_motion(rng, "validation", 2)
        for ask in MOTION.values():
            if draft := ask(rng, motion):
                words = draft.text.replace("?", " ?").replace(",", " ,").split()
                assert len(tokenizer.tokenize(draft.text)) == len(words)


def test_items_of_tokens_are_those_of_the_questions():
    """The tokens that carry the items of a question show, frame by frame, what its evidence boxes hold."""
    rng = np.random.default_rng(2)
    for _ in range(12):
        motion = sample_motion(rng, "validation", 2)
        images, item, ground = frames_of(motion)
        assert images.shape == (8, 112, 112, 3)
        assert (item.shape, ground.shape) == ((TOTAL,), (TOTAL,))
        assert ground.reshape(8, 65)[:, 0].all()
        for number in set(item.tolist()) - {-1}:
            tokens = np.flatnonzero(item == number)
            frame, (x0, y0, x1, y1) = motion.items[number]
            assert set(tokens // 65) == {frame}
            y, x = np.divmod(tokens % 65 - 1, 8)
            assert ((x * 14 < x1) & (x * 14 + 14 > x0) & (y * 14 < y1) & (y * 14 + 14 > y0)).all()


def test_training_and_generate_give_the_same_answers(loaded):
    questions = [q for q in load_motion_split("validation", 2) if q.type != "background"][:6]
    asked = {a.key: a for a in ask_motion(loaded.model, loaded.processor, "video-validation", 2)}
    for question in questions:
        images, item, ground = frames_of(question.motion)
        from vlm_pruner.scenes.questions import Draft

        items = tuple(range(len(question.answer))) if question.type in ("word", "number") else (0,)
        draft = Draft(question.type, question.text, question.answer, question.chance, items)
        arrays = {"images": images, "item": item, "ground": ground} | pack([draft])
        batch = {name: torch.from_numpy(np.array(a))[None] for name, a in arrays.items()}
        with torch.no_grad():
            frames = tower_frames(loaded.model, batch)
            rows = answer(loaded.model, frames, TOTAL, total=TOTAL)[1]
        right = bool((rows["logits"].argmax(-1) == rows["target"]).all())
        inputs = read_prompt(loaded.processor, asked[question.id].prompt, list(asked[question.id].images))
        with torch.inference_mode():
            ids = loaded.model.generate(**inputs, do_sample=False, max_new_tokens=12)
        said = loaded.processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        assert question.score(said) == right, (question.text, question.answer, said)


def test_samples_for_training_have_what_they_should():
    rng = np.random.default_rng(0)
    sample = draw_sample(rng)
    assert sample["tokens"].shape == (16, 13)
    assert (sample["target"] >= 0).any(1).all()
    motion = sample_motion(rng, "train", 10)
    assert {d.type for d in draw_drafts(rng, motion, 30)} <= set(MOTION)


def test_frames_have_signals_of_their_own_tower(loaded):
    """[CLS] attention of every frame, as the eager tower gives it."""
    question = ask_motion(loaded.model, loaded.processor, "video-validation", 1)[0]
    inputs = read_prompt(loaded.processor, question.prompt, list(question.images))
    tower = loaded.model.model.video_tower
    tower.config._attn_implementation = "eager"
    with torch.inference_mode():
        rows = tower(inputs["pixel_values_videos"][0], output_attentions=True).attentions[-1][:, :, 0, 1:].mean(1)
    tower.config._attn_implementation = "sdpa"
    expected = rows.flatten().topk(40).indices  # [frames * 64]
    expected = (expected // 64 * 65 + expected % 64 + 1).sort().values
    with torch.inference_mode(), vp.prune(loaded.model, "cls-attention", keep=40, layer=0) as session:
        loaded.model.generate(**inputs, do_sample=False, max_new_tokens=2)
    assert session.images[0].selection.index.tolist() == expected.tolist()
