"""Times of functions that run in turn in one process."""

import statistics
import time
from collections.abc import Callable


def interleaved(
    functions: dict[str, Callable[[], object]], repeats: int
) -> dict[str, tuple[float, float]]:
    """Return the median and the minimum of each function's seconds, by name.

    Each repeat calls every function once, in turn, so that whatever else the machine does meets
    all of them alike. One more repeat goes before, to warm up.
    """
    times = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: (statistics.median(taken), min(taken)) for name, taken in times.items()}
