"""Two settings of the process that small tensors on a CPU need; call before torch is imported."""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc, malloc.h
LARGE = 2**30  # bytes
SPINS = "20000"  # some 10 microseconds


def tune_cpu() -> None:
    """Keep freed memory, and let idle threads sleep.

    By default glibc maps and unmaps every large tensor anew: page faults are 5 % of a small training step.
    By default idle OpenMP threads spin for milliseconds: on a laptop whose cores are also wanted by others, a
    training step then takes twice as long. A setting of the user's own wins.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            library.mallopt(M_MMAP_THRESHOLD, LARGE)
            library.mallopt(M_TRIM_THRESHOLD, LARGE)
