"""Stop flags: everybody has their own."""

from __future__ import annotations

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


def test_all_stop_with_the_server():
    jobs = Jobs()
    flags = [jobs.begin(name) for name in ("ann", "bob")]
    jobs.stop_all()
    assert all(flag.is_set() for flag in flags)
