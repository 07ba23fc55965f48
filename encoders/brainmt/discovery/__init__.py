"""Where the scans of a cohort lie: one file for each layout; `encoders.brainmt.discover` is the door."""

from encoders.brainmt.discovery.scan import Listing, MotionFile, Scan

__all__ = ["Listing", "MotionFile", "Scan"]
