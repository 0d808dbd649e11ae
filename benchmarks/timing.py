"""Times of functions that run in turn in one process."""

import random
import statistics
import time
from collections.abc import Callable


def interleaved(
    functions: dict[str, Callable[[], object]], repeats: int
) -> dict[str, tuple[float, float]]:
    """Return the median and the minimum of each function's seconds, by name.

    Each repeat calls every function once, in an order drawn anew, so that whatever else the machine
    does, and what the one before leaves in its caches, meets all of them alike. One more repeat
    goes before, to warm up.
    """
    times, draw = {name: [] for name in functions}, random.Random(0)
    for repeat in range(repeats + 1):
        for name in draw.sample(list(functions), len(functions)):
            start = time.perf_counter()
            functions[name]()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: (statistics.median(taken), min(taken)) for name, taken in times.items()}
