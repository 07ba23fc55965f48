"""Where the scans of a cohort lie: one file for each layout; `encoders.brainmt.preparation.discover` is the door."""

from encoders.brainmt.preparation.discovery.scan import Listing, MotionFile, Scan

__all__ = ["Listing", "MotionFile", "Scan"]
