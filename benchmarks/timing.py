"""Time measurements of functions that take turns in one process."""

import random
import statistics
import time
from collections.abc import Callable


def interleaved(
    functions: dict[str, Callable[[], object]], repeats: int
) -> dict[str, tuple[float, float]]:
    """Return the median and the minimum of each function's seconds, by name.

    Each repeat calls every function once, in a new random order, so that other load on the machine
    and the state of caches affect all of them equally. One more repeat before warms up.
    """
    times, draw = {name: [] for name in functions}, random.Random(0)
    for repeat in range(repeats + 1):
        for name in draw.sample(list(functions), len(functions)):
            start = time.perf_counter()
            functions[name]()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: (statistics.median(taken), min(taken)) for name, taken in times.items()}
