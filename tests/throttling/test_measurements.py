from __future__ import annotations

import os

from throttling.measurements import BOUNDS, MICROSECONDS, WITHIN, Measurements


def test_each_round_trip_is_counted_within_one_bound() -> None:
    measured = Measurements()
    for bound in BOUNDS:
        measured.answered(bound)
        measured.answered(bound * 1.000_001)
    taken = measured.take()
    assert [taken[name] for name in WITHIN] == [1, *[2] * (len(BOUNDS) - 1), 1]
    assert taken[MICROSECONDS] == round(sum(BOUNDS) * 2e6)


def test_what_was_taken_is_not_taken_again() -> None:
    measured = Measurements()
    measured.count("something")
    assert measured.take() == {"something": 1}
    assert measured.take() == {}


def test_a_forked_child_leaves_to_its_parent_what_that_has_measured() -> None:
    from throttling.measurements import measurements

    measurements.count("something")
    child = os.fork()
    if not child:
        os._exit(len(measurements.take()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert measurements.take() == {"something": 1}
