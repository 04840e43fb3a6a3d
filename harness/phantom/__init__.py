"""Synthetic patients that stand in for credentialed data: same layouts on disk, learnable, stamped."""

from harness.phantom.anatomy import Cohort, Dials, Finding, Person, Picture, Study

__all__ = ["STAMP", "Cohort", "Dials", "Finding", "Person", "Picture", "Study"]

STAMP = "PHANTOM.json"
"""Written last into every phantom: what carries it is synthetic, whoever put it where."""
