"""What can go wrong, as one tree.

    PyfocusError
    ├── ReadError           a file is missing, empty, truncated, not an image, or of a kind we do not read
    ├── WriteError          a target exists already, cannot be written, or the disk is full
    ├── BurstError          the frames do not belong together (sizes, cameras, number)
    ├── ArgumentError       a value, shape or dtype the function does not take (also a ValueError)
    ├── RegistrationError   no frame could be registered
    ├── NoiseError          no place flat enough to tell the noise
    ├── ResourceError       memory, threads or a device that is not there (also a RuntimeError)
    │   └── DeviceError     a device that is there failed: a launch, a copy, a driver
    ├── ExportError         a model that cannot be exported, or whose exported form gives something else
    ├── TrainingError       a training run that learns nothing any more
    └── Cancelled           the caller asked to stop

Every text names the function or file, what was expected, what was found, and what to try.
"""

from __future__ import annotations


class PyfocusError(Exception):
    """Base of every error this library raises on purpose."""


class ReadError(PyfocusError):
    """A file is missing, empty, truncated, not an image, or of a kind that is not read."""


class WriteError(PyfocusError):
    """A target exists already, cannot be written, or the disk is full."""


class BurstError(PyfocusError):
    """The frames do not belong together: sizes, cameras, or how many there are."""


class ArgumentError(PyfocusError, ValueError):
    """A value, shape or dtype that the function does not take."""


class RegistrationError(PyfocusError):
    """No frame could be registered to the reference."""


class NoiseError(PyfocusError):
    """No place in the frames is flat enough to tell their noise."""


class ResourceError(PyfocusError, RuntimeError):
    """Memory, threads or a device that is not there."""


class DeviceError(ResourceError):
    """A CUDA device that is there failed: a launch, a copy or its driver."""


class TrainingError(PyfocusError):
    """A training run that learns nothing any more: its loss has left the finite, or has risen far."""


class ExportError(PyfocusError):
    """A model that cannot be exported, or whose exported form does not give what the model gives."""


class Cancelled(PyfocusError):
    """The caller asked to stop; nothing was written."""
