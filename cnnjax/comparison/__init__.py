"""Comparisons of arms: is this one better, by how much, and how sure are we? Pure functions; no JAX."""

from cnnjax.comparison.paired import PairedComparison, compare_paired
from cnnjax.comparison.verdicts import Verdict, decide

__all__ = ["PairedComparison", "Verdict", "compare_paired", "decide"]
