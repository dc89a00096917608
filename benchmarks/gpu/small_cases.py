"""Every kernel once on tiny device arrays of ragged sizes: what compute-sanitizer watches.

The sizes are several blocks with ragged edges, and few enough threads that racecheck ends within a minute.
"""

from __future__ import annotations

import argparse
import traceback

from cases import GROUPS, pushes
from clock import Row, main, missing
from deform_conv import deform_convs

from pyfocus import _C

SIZE = (38, 70)  # even: a mosaic's


def work(options: argparse.Namespace, found: Row) -> None:
    """Call them; one that fails does not keep the others from being called."""
    stream = _C.Stream()
    groups = [(group, needs, (70, 90) if group is pushes else SIZE) for group, needs, _ in GROUPS]
    for group, needs, size in [*groups, (deform_convs, ("deform_conv", "deform_conv_backward"), SIZE)]:
        why = missing(*needs)
        if why:
            found["skipped"].append({"what": group.__name__, "why": why})
            continue
        try:
            for case in group(size):
                case.call(stream.handle)
                stream.synchronize()
                found["operations"].append({"name": case.name})
        except Exception:
            found["errors"].append(f"{group.__name__}: {traceback.format_exc()}")


if __name__ == "__main__":
    main(work, __doc__)
