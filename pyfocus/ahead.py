"""Reading ahead: the next frame is decoded by a second thread while this one is worked on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from .burst import Burst, Frame


def read_ahead(burst: Burst, order: Iterable[int]) -> Iterator[tuple[int, Frame]]:
    """(place, frame) in the given order; at most two decoded frames exist at a time."""
    places = list(order)
    with ThreadPoolExecutor(1, thread_name_prefix="pyfocus-read") as reader:
        coming = reader.submit(burst.__getitem__, places[0]) if places else None
        for i, place in enumerate(places):
            assert coming is not None
            frame = coming.result()
            coming = reader.submit(burst.__getitem__, places[i + 1]) if i + 1 < len(places) else None
            yield place, frame
            del frame
