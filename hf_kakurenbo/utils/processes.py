"""What processes do that work for another one."""

from __future__ import annotations

import os
from multiprocessing import connection, parent_process


def end_with_parent() -> None:
    """Wait until the process that started this one is gone, however it ended, then end this one at once; for a thread.

    A process that is killed cannot end those that it started.
    """
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
