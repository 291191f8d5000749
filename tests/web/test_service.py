"""Comparisons as events: real generations of a tiny model, stopped, failing and queueing."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest
from PIL import Image

from vlm_pruner.asking import ask
from vlm_pruner.errors import InputError
from vlm_pruner.methods.random import RandomPrune
from vlm_pruner.plan import PrunePlan
from vlm_pruner.web.service import Done, Failed, Said, Service, Started, Stopped, Waiting
from vlm_pruner.web.settings import Choice

IMAGE = Image.radial_gradient("L").resize((200, 160)).convert("RGB")
QUESTION = "what is this ?"


def kinds(events) -> list[tuple[str, int | None]]:
    return [(type(e).__name__, getattr(e, "column", None)) for e in events if not isinstance(e, Said)]


def test_the_answers_are_those_of_the_library(tiny):
    choices = [Choice("random", 11, 2), Choice("grid", 25)]
    events = list(Service(tiny).compare(IMAGE, QUESTION, choices, max_new_tokens=4))
    assert kinds(events) == [(kind, column) for column in range(3) for kind in ("Started", "Done")]
    runs = [event.run for event in events if isinstance(event, Done)]
    plans = [choice.plan(tiny.plan) for choice in choices]
    expected = ask(tiny, IMAGE, QUESTION, plans, max_new_tokens=4, runs=1)
    assert [run.text for run in runs] == [answer.text for answer in expected]
    assert [run.report.kept for run in runs] == [576, 64, 144]
    assert all(run.times.first_token_ms > 0 and run.times.prefill_ms > 0 for run in runs)


def test_a_plan_and_parameters_of_the_server(tiny):
    own = {"plan.json": PrunePlan.of("grid", 9, num_layers=4), "random": RandomPrune(seed=3)}
    events = list(Service(tiny, own).compare(IMAGE, QUESTION, [Choice("plan.json", 50), Choice("random", 25)]))
    runs = [event.run for event in events if isinstance(event, Done)]
    assert [run.report.kept for run in runs] == [576, 9, 144]
    assert runs[2].plan.stages[0].method == RandomPrune(seed=3)


def test_the_text_grows_and_ends_as_the_answer(tiny):
    events = list(Service(tiny).compare(IMAGE, QUESTION, [], max_new_tokens=6))
    said = [event.text for event in events if isinstance(event, Said)]
    assert said
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(said))
    assert said[-1].strip() == events[-1].run.text


def test_a_choice_that_cannot_be_carried_out_fails_alone(tiny):
    choices = [Choice("grid", 11, 40), Choice("pyramiddrop", 11, 2), Choice("grid", 11)]
    events = list(Service(tiny).compare(IMAGE, QUESTION, choices, max_new_tokens=2))
    failed = {event.column: event.message for event in events if isinstance(event, Failed)}
    assert set(failed) == {1, 2}
    assert "layer 40 does not exist" in failed[1]
    assert "pyramiddrop prunes at several layers" in failed[2]
    assert isinstance(events[-1], Done)


def test_whatever_a_model_raises_is_one_line(tiny, monkeypatch, caplog):
    def explode(**kwargs):
        raise RuntimeError("CUDA out of memory.\nTraceback (most recent call last)")

    monkeypatch.setattr(tiny.model, "generate", explode)
    events = list(Service(tiny).compare(IMAGE, QUESTION, []))
    assert events[-1] == Failed(0, "the model could not answer: CUDA out of memory.")
    assert "RuntimeError" in caplog.text  # the log has all of it


@pytest.mark.parametrize(
    ("image", "question", "choices", "message"),
    [
        (None, QUESTION, 1, "choose or upload an image or a video first"),
        (IMAGE, "  ", 1, "the question is empty"),
        (IMAGE, "<image> ?", 1, "contains the image placeholder"),
        (IMAGE, QUESTION, 4, "at most 3 methods can be compared, not 4"),
    ],
)
def test_entries_that_make_no_sense(tiny, image, question, choices, message):
    with pytest.raises(InputError, match=message):
        list(Service(tiny).compare(image, question, [Choice("grid", 11)] * choices))


def test_stopping_ends_it_at_the_next_token_and_frees_the_model(tiny):
    service, stop = Service(tiny), threading.Event()
    events = []
    for event in service.compare(IMAGE, QUESTION, [Choice("grid", 11)], max_new_tokens=400, stop=stop):
        events.append(event)
        if isinstance(event, Said):
            stop.set()
    assert events[-1] == Stopped()
    assert not any(isinstance(event, Done) for event in events)
    assert len(events) < 20
    assert isinstance(list(service.compare(IMAGE, QUESTION, [], max_new_tokens=1))[-1], Done)


def test_stopping_does_not_wait_for_the_end_of_a_long_prefill(tiny):
    service, stop, layers = Service(tiny), threading.Event(), tiny.model.model.language_model.layers
    reached = []
    hooks = [
        layers[0].register_forward_pre_hook(lambda *_: stop.set()),
        layers[2].register_forward_pre_hook(lambda *_: reached.append(2)),
    ]
    try:
        events = list(service.compare(IMAGE, QUESTION, [], max_new_tokens=4, stop=stop))
    finally:
        for hook in hooks:
            hook.remove()
    assert events[-1] == Stopped()
    assert not reached


def test_a_reader_who_goes_away_frees_the_model(tiny):
    service, stop = Service(tiny), threading.Event()
    reading = service.compare(IMAGE, QUESTION, [], max_new_tokens=400, stop=stop)
    while not isinstance(next(reading), Said):
        pass
    reading.close()
    assert stop.is_set()  # what the model looks at after every token
    assert isinstance(list(service.compare(IMAGE, QUESTION, [], max_new_tokens=1))[-1], Done)


def test_two_visitors_take_turns_answer_by_answer(tiny):
    service, order, lock = Service(tiny), [], threading.Lock()

    def visit(name: str) -> None:
        for event in service.compare(IMAGE, QUESTION, [Choice("grid", 11)] * 2, max_new_tokens=3):
            with lock:
                order.append((name, event))
            while len(service._turns.line) < 2 and len(order) < 2:
                time.sleep(0.001)  # whoever comes first is being served when the other comes

    threads = [threading.Thread(target=visit, args=(name,)) for name in ("ann", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    started = [name for name, event in order if isinstance(event, Started)]
    assert sorted(started) == ["ann"] * 3 + ["bob"] * 3
    assert started[:4] not in (
        ["ann", "ann", "ann", "bob"],
        ["bob", "bob", "bob", "ann"],
    )  # nobody is served whole first
    assert any(isinstance(event, Waiting) and event.ahead == 1 for _, event in order)


def test_warming_up_leaves_the_model_unpruned(tiny):
    def hooks() -> int:
        return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in tiny.model.modules())

    Service(tiny).warm_up(IMAGE)  # transformers installs hooks of its own the first time
    before = hooks()
    Service(tiny).warm_up(IMAGE)
    assert hooks() == before


def test_a_cold_start_is_no_cost_of_a_plan(tiny, monkeypatch):
    """Every plan runs once, untimed, on inputs of new shapes: what the first run pays for is sold as saving else."""
    calls = []
    generate = tiny.model.generate

    def counted(**inputs):
        calls.append(inputs["max_new_tokens"])
        return generate(**inputs)

    monkeypatch.setattr(tiny.model, "generate", counted)
    service = Service(tiny)
    choices = [Choice("grid", 11), Choice("random", 25)]
    list(service.compare(IMAGE, QUESTION, choices, max_new_tokens=3))
    assert calls == [2, 3] * 3
    calls.clear()
    list(service.compare(IMAGE, QUESTION, choices, max_new_tokens=3))
    assert calls == [3] * 3, "these plans and shapes are warm"
    calls.clear()
    list(service.compare(IMAGE, QUESTION + " what ?", choices[:1], max_new_tokens=3))
    assert calls == [2, 3] * 2


def test_a_question_that_leaves_no_room_for_its_answer_is_refused_at_once(tiny):
    with pytest.raises(InputError, match="this model reads at most 2048"):
        list(Service(tiny).compare(IMAGE, QUESTION, [], max_new_tokens=4000))
