"""Frames brought to where the work is, ahead of it, each with what the equaliser sees of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock

from .arrays import Arrays, DeviceArrays
from .burst import Frame, Meta
from .equalise import Thumb, thumb_of
from .errors import ResourceError
from .staging import Slot, Staging


@dataclass(frozen=True)
class Brought:
    """A frame where the work is: on a device with its thumb and its place in the staging."""

    frame: Frame
    thumb: Thumb | None = None
    slot: Slot | None = None
    staging: Staging | None = None

    def give_back(self) -> None:
        """All work that reads the frame was enqueued."""
        if self.staging and self.slot:
            self.staging.done(self.slot)


class Bringer:
    """Brings frames to ``arrays``, in any thread; on the host they are there already.

    ``thumbs``: with each frame's small picture, made on the staging's stream beside the work.
    """

    def __init__(self, arrays: Arrays, thumbs: bool) -> None:
        self._staging = Staging(arrays) if isinstance(arrays, DeviceArrays) else None
        self._thumbs, self._one_at_a_time = thumbs, Lock()

    def bring(self, frame: Frame, levels: Meta | None) -> Brought:
        """The frame, on its way. Raises ResourceError where a device has no memory for it, and leaves nothing there."""
        if self._staging is None:
            return Brought(frame)
        there, slot = self._staging.put(frame)
        brought = Brought(there, None, slot, self._staging)
        if not self._thumbs:
            return brought
        try:
            with self._one_at_a_time:
                return replace(brought, thumb=thumb_of(there, levels, arrays=self._staging.arrays))
        except ResourceError:
            brought.give_back()
            raise

    def here(self, brought: Brought) -> Frame:
        """The frame for work that is enqueued now; brought to a device by another one than this, it comes home."""
        if brought.slot is None or brought.staging is None:
            return brought.frame
        if self._staging is None:
            return Frame(brought.staging.arrays.to_host(brought.frame.data), brought.frame.meta)
        brought.staging.ready(brought.slot)
        return brought.frame
