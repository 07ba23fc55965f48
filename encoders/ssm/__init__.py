"""Selective state spaces: the scan behind one dispatcher, the Mamba mixer, its bidirectional form."""

from encoders.ssm.mamba import BiMamba, MambaMixer, RMSNorm
from encoders.ssm.scan import scan_directions, selective_scan

__all__ = ["BiMamba", "MambaMixer", "RMSNorm", "scan_directions", "selective_scan"]
