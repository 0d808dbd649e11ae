"""Decoding, network and writing in threads: in order, bounded, and they end together."""

import threading
import time

import numpy as np
import pytest

from video import writer
from video.background import map_in_background, prefetch
from video.decoding import decode, probe


def counting(items, taken, fail_at=None):
    for item in items:
        if item == fail_at:
            raise OSError(f"no {item}")
        taken.append(item)
        yield item


def test_items_come_in_order_and_at_most_a_few_ahead():
    taken, seen, lead = [], [], 0
    for item in prefetch(counting(range(50), taken), most=3):
        time.sleep(0.002 * (item % 7 == 0))
        seen.append(item)
        lead = max(lead, len(taken) - len(seen))
    assert seen == list(range(50)) and 0 < lead <= 3
    assert list(prefetch([])) == []


def test_an_error_comes_at_its_place_and_ends_the_thread():
    seen, before = [], threading.active_count()
    with pytest.raises(OSError, match="no 5"):
        for item in prefetch(counting(range(9), [], fail_at=5)):
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4] and threading.active_count() == before


def test_a_loop_that_is_left_ends_the_thread():
    taken, before = [], threading.active_count()
    items = prefetch(counting(range(10**9), taken), most=2)
    assert next(items) == 0 and threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before and len(taken) <= 4


def test_what_was_taken_is_written_before_an_error_of_the_source_is_raised():
    """The maps up to where a clip is damaged are kept."""
    written, before = [], threading.active_count()
    slow = [lambda n: time.sleep(0.002), written.append]
    with pytest.raises(OSError, match="no 7"):
        list(map_in_background(lambda n: [do(n) for do in slow], counting(range(9), [], fail_at=7)))
    assert written == list(range(7)) and threading.active_count() == before


def test_results_of_writing_come_in_order_and_few_items_wait():
    taken, done, lead = [], [], 0
    for result in map_in_background(lambda n: n * n, counting(range(40), taken), most=4):
        done.append(result)
        lead = max(lead, len(taken) - len(done))
    assert done == [n * n for n in range(40)] and lead <= 4


def test_an_error_of_writing_is_raised_soon():
    taken = []
    with pytest.raises(ZeroDivisionError):
        list(map_in_background(lambda n: 1 / (3 - n), counting(range(1000), taken), most=4))
    assert len(taken) <= 9


def test_painting_that_fails_ends_the_encoder_and_its_thread(clip, tmp_path):
    info, before = probe(clip), threading.active_count()

    def pictures():
        for frame in decode(info):
            if frame.number == 9:
                raise ValueError("no picture 9")
            yield np.full((72, 96), 16, np.uint8), frame.image

    with pytest.raises(ValueError, match="no picture 9"):
        writer.write_video(tmp_path / "out.mp4", info, pictures())
    assert threading.active_count() == before
