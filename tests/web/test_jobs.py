"""Stop flags: everybody has their own."""

from __future__ import annotations

import threading

from vlm_pruner.web.jobs import Jobs


def test_a_visitor_stops_their_own_answer_only():
    jobs = Jobs()
    ann, bob = jobs.begin("ann"), jobs.begin("bob")
    assert jobs.stop("ann")
    assert ann.is_set()
    assert not bob.is_set()


def test_stopping_nothing_says_so():
    jobs = Jobs()
    assert not jobs.stop("ann")
    jobs.end("ann", jobs.begin("ann"))
    assert not jobs.stop("ann")


def test_a_new_question_replaces_the_old_one():
    jobs = Jobs()
    old, new = jobs.begin("ann"), jobs.begin("ann")
    assert old.is_set()
    jobs.end("ann", old)  # the old one ends late and must not take the new one's flag along
    assert jobs.stop("ann")
    assert new.is_set()


def test_closing_stops_everybody_and_whoever_comes_later():
    jobs = Jobs()
    flags = [jobs.begin(name) for name in ("ann", "ann", "bob")]
    assert not jobs.close(patience=0)
    assert all(flag.is_set() for flag in flags)
    assert jobs.begin("eve").is_set()


def test_closing_waits_until_all_have_ended():
    jobs, ended = Jobs(), []
    flag = jobs.begin("ann")

    def answer() -> None:
        flag.wait(10)
        ended.append(True)
        jobs.end("ann", flag)

    thread = threading.Thread(target=answer)
    thread.start()
    assert jobs.close(patience=10)
    assert ended
    thread.join()
    assert jobs.close(patience=0)
