"""Synthetic patients that stand in for credentialed data: same layouts on disk, learnable, stamped."""

from harness.phantom.anatomy import Cohort, Dials, Finding, Person, Picture, Study, with_finding, with_only
from harness.phantom.stamp import STAMP, draw, stamp, truth

__all__ = [
    "STAMP",
    "Cohort",
    "Dials",
    "Finding",
    "Person",
    "Picture",
    "Study",
    "draw",
    "stamp",
    "truth",
    "with_finding",
    "with_only",
]
