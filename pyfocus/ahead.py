"""Reading ahead: the next frame is decoded by a second thread while this one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .burst import Burst, Frame

T = TypeVar("T")


def read_ahead(burst: Burst, order: Iterable[int], then: Callable[[Frame], T]) -> Iterator[tuple[int, T]]:
    """(place, then(frame)) in the given order; ``then`` runs in the reading thread.

    With a ``then`` that returns the frame itself, two decoded frames exist at a time.
    """
    places = list(order)

    def read(place: int) -> T:
        return then(burst[place])

    with ThreadPoolExecutor(1, thread_name_prefix="pyfocus-read") as reader:
        coming = reader.submit(read, places[0]) if places else None
        for i, place in enumerate(places):
            assert coming is not None
            found = coming.result()
            coming = reader.submit(read, places[i + 1]) if i + 1 < len(places) else None
            yield place, found
            del found
