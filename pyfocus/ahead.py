"""Reading ahead: the next frames are decoded by other threads while this one is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .burst import Burst, Frame

T = TypeVar("T")


def read_ahead(
    burst: Burst, order: Iterable[int], then: Callable[[Frame], T], *, ahead: int = 1
) -> Iterator[tuple[int, T]]:
    """(place, then(frame)) in the given order; ``then`` runs in the reading threads, ``ahead`` of them.

    With a ``then`` that returns the frame itself, ``ahead + 1`` decoded frames exist at a time. With none ahead this
    thread reads, and the caller's frame should be gone before the next one is asked for.
    """
    places = list(order)

    def read(place: int) -> T:
        return then(burst[place])

    if ahead == 0:
        for place in places:
            yield place, read(place)
        return
    with ThreadPoolExecutor(ahead, thread_name_prefix="pyfocus-read") as readers:
        coming = deque(readers.submit(read, place) for place in places[:ahead])
        for i, place in enumerate(places):
            found = coming.popleft().result()
            if i + ahead < len(places):
                coming.append(readers.submit(read, places[i + ahead]))
            yield place, found
            del found
