"""The line in front of the model: one at a time, first come first served, and nobody is stuck."""

from __future__ import annotations

import threading
import time

import pytest

from vlm_pruner.web.turns import StoppedError, Turns


def test_the_first_need_not_wait():
    turns = Turns()
    with turns.ticket(threading.Event()) as ticket:
        assert list(ticket.wait()) == []


def test_turns_come_in_the_order_of_arrival_and_never_overlap():
    turns, served, inside = Turns(), [], []
    here = threading.Barrier(2)

    def visitor(name: int) -> None:
        with turns.ticket(threading.Event()) as ticket:
            here.wait()
            for _ in ticket.wait():
                pass
            inside.append(name)
            assert len(inside) == 1
            served.append(name)
            time.sleep(0.01)
            inside.remove(name)

    with turns.ticket(threading.Event()):
        threads = [threading.Thread(target=visitor, args=(i,)) for i in range(5)]
        for thread in threads:
            thread.start()
            here.wait()  # has its ticket before the next one comes
    for thread in threads:
        thread.join(5)
    assert served == [0, 1, 2, 3, 4]


def test_those_who_wait_are_told_how_many_are_ahead():
    turns = Turns()
    first, second = turns.ticket(threading.Event()), turns.ticket(threading.Event())
    first.__enter__()
    second.__enter__()
    with turns.ticket(threading.Event()) as third:
        told = third.wait()
        assert next(told) == 2
        first.__exit__(None, None, None)
        assert next(told) == 1
        second.__exit__(None, None, None)
        assert list(told) == []


def test_a_waiting_visitor_can_leave_and_the_next_moves_up():
    turns, stop = Turns(), threading.Event()
    with turns.ticket(threading.Event()):
        with turns.ticket(stop) as second:
            told = second.wait()
            assert next(told) == 1
            stop.set()
            with pytest.raises(StoppedError):
                next(told)
        with turns.ticket(threading.Event()) as third:
            assert next(third.wait()) == 1


def test_who_stops_when_it_is_their_turn_is_not_served():
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError), Turns().ticket(stop) as ticket:
        list(ticket.wait())
