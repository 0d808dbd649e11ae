"""Concurrent stages of a stream: threads compute the next items while one is used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
S = TypeVar("S")
STREAM_END: Any = object()


def map_in_background(
    function: Callable[[T], S],
    items: Iterable[T],
    most: int = 8,
    threads: int = 1,
    prepare: Callable[[], object] | None = None,
) -> Iterator[S]:
    """Yield function(item) for each item, in order, computed in background threads.

    At most `most` items wait. All that were taken are computed, however the loop ends; errors are
    raised in their place. prepare: called first in each thread.
    """
    with ThreadPoolExecutor(threads, initializer=prepare) as thread:
        waiting = deque()
        for item in items:
            waiting.append(thread.submit(function, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def prefetch(items: Iterable[T], most: int = 3) -> Iterator[T]:
    """Yield items in order while a thread fetches at most `most` items in advance."""
    iterator = iter(items)
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, iterator, STREAM_END) for _ in range(most))
        while (item := waiting.popleft().result()) is not STREAM_END:
            waiting.append(thread.submit(next, iterator, STREAM_END))
            yield item
