"""Comparisons of arms: is this one better, by how much, and how sure are we? Pure functions; no JAX."""

from cnnjax.comparison.aggregates import interquartile_mean
from cnnjax.comparison.anova import Share, analyze_variance
from cnnjax.comparison.capacity import adjust_for_size, pareto_front
from cnnjax.comparison.contrasts import Contrast
from cnnjax.comparison.criteria import Criteria
from cnnjax.comparison.factors import Effect, estimate_effects
from cnnjax.comparison.families import compare_all_pairs, compare_with_base
from cnnjax.comparison.losses import Losses, Outcomes, Runs, complete
from cnnjax.comparison.noise import Noise, mcnemar_p, split_noise
from cnnjax.comparison.paired import PairedComparison, compare_paired
from cnnjax.comparison.ranks import Ranks, rank_arms
from cnnjax.comparison.sequential import compare_in_looks, plan_looks, spend
from cnnjax.comparison.verdicts import Verdict, decide

__all__ = [
    "Contrast",
    "Criteria",
    "Effect",
    "Losses",
    "Noise",
    "Outcomes",
    "PairedComparison",
    "Ranks",
    "Runs",
    "Share",
    "Verdict",
    "adjust_for_size",
    "analyze_variance",
    "compare_all_pairs",
    "compare_in_looks",
    "compare_paired",
    "compare_with_base",
    "complete",
    "decide",
    "estimate_effects",
    "interquartile_mean",
    "mcnemar_p",
    "pareto_front",
    "plan_looks",
    "rank_arms",
    "spend",
    "split_noise",
]
