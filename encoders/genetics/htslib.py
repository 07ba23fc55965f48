"""pysam, the one door to htslib; where it is not installed, a sentence instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from encoders.runs.errors import InputError

try:
    import pysam
    import pysam.bcftools
except ImportError as cause:
    raise InputError(
        "pysam is not installed, and it reads genomes and variants; install it with: pip install 'neurohelix[genetics]'"
    ) from cause

__all__ = ["pysam", "quiet_htslib"]


@contextmanager
def quiet_htslib() -> Iterator[None]:
    """Keep htslib from writing to stderr what an InputError is about to say in words."""
    before = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(before)
