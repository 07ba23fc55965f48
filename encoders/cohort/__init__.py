"""Who is in the study: the table of people, their kinship, the split, the confounds."""

from encoders.cohort.confounds import ConfoundDesign, Residualizer
from encoders.cohort.kinship import groups_of, read_kinship
from encoders.cohort.splits import Split, make_split
from encoders.cohort.table import Cohort

__all__ = ["Cohort", "ConfoundDesign", "Residualizer", "Split", "groups_of", "make_split", "read_kinship"]
