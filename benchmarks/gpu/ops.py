"""Each kernel on a large frame beside the bytes it must move and the speed of a copy measured in the same run."""

from __future__ import annotations

import argparse
import traceback

from cases import GROUPS, pushes
from clock import COPY_BYTES, Clock, Row, main, missing, row


def work(options: argparse.Namespace, found: Row) -> None:
    """Copy first, then every group; one that fails does not lose the others."""
    clock = Clock(2 if options.quick else 20)
    size = 1_000_000 if options.quick else COPY_BYTES
    copy = found["copy_gb_s"] = round(clock.copy_gb_s(size), 1)
    found["upload_gb_s"] = round(clock.upload_gb_s(size // 4), 1)
    for group, needs, whole in GROUPS:
        why = missing(*needs)
        if why:
            found["skipped"].append({"what": group.__name__, "why": why})
            continue
        try:
            for case in group((64, 96) if options.quick else whole):
                goal = None if options.quick else case.goal
                watch = clock.wall_milliseconds if group is pushes else clock.milliseconds
                found["operations"].append(row(case.name, watch(case.call), case.bytes, copy, goal))
        except Exception:
            found["errors"].append(f"{group.__name__}: {traceback.format_exc()}")


if __name__ == "__main__":
    main(work, __doc__)
