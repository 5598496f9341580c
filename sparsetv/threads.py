"""Work on chunks in threads, with results in order and memory bounded."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

THREADS = 2
_AHEAD = 4
"""Chunks per thread that may wait for the consumer; bounds memory."""

_HEAP = (32 << 20) - (1 << 16)
"""Just below the largest block that glibc's allocator will ever keep for itself."""

_Result = TypeVar("_Result")


def in_order(jobs: Iterable[Callable[[], _Result]]) -> Iterator[_Result]:
    """Results of jobs in order, made by `THREADS` threads that run only a few jobs ahead."""
    keep_freed_memory()
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) > _AHEAD * THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def keep_freed_memory() -> None:
    """Let the allocator keep what chunks free instead of giving it back to the kernel each time.

    glibc raises its thresholds to the largest block ever freed. Without this, faulting the same few megabytes in for
    every chunk takes a third of the time. The block is never touched, so it costs nothing.
    """
    np.empty(_HEAP, np.uint8)
