"""A command of ours that can write files of at most SIZE bytes: its errors are those of a full disk or quota.

    python small_files.py SIZE launch table1 --scale smoke

A small disk can be mounted by root alone, and not in every container; a limit can be set by everybody.
"""

from __future__ import annotations

import os
import resource
import sys

if __name__ == "__main__":
    size = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    os.execv(sys.executable, [sys.executable, "-m", "repro", *sys.argv[2:]])
