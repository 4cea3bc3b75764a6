"""Comparisons of arms: is this one better, by how much, and how sure are we? Pure functions; no JAX."""

from cnnjax.statistics.any_time import plan_looks_at_any_time
from cnnjax.statistics.capacity import adjust_for_size, pareto_front
from cnnjax.statistics.datasets import DatasetContrast, compare_over_datasets
from cnnjax.statistics.estimates import interquartile_mean
from cnnjax.statistics.factors import (
    Effect,
    LogOdds,
    Share,
    VarianceSplit,
    analyze_variance,
    estimate_effects,
    split_variance,
)
from cnnjax.statistics.families import Contrast, compare_all_pairs, compare_with_baseline
from cnnjax.statistics.losses import Losses, Outcomes, RunCounts, complete, mark_collapsed
from cnnjax.statistics.measures import Measure
from cnnjax.statistics.new_images import WiderVerdict, decide_for_new_images
from cnnjax.statistics.new_training import TrainingDraw, decide_for_new_training
from cnnjax.statistics.noise import Noise, mcnemar_p, split_noise
from cnnjax.statistics.paired import PairedComparison, compare_paired
from cnnjax.statistics.posteriors import Posterior, find_posterior
from cnnjax.statistics.ranks import Ranks, rank_arms
from cnnjax.statistics.rates import Rate, RateComparison, compare_rates, estimate_rate
from cnnjax.statistics.sequential import compare_in_looks, plan_looks, spend
from cnnjax.statistics.verdicts import Criteria, Verdict, decide

__all__ = [
    "Contrast",
    "Criteria",
    "DatasetContrast",
    "Effect",
    "LogOdds",
    "Losses",
    "Measure",
    "Noise",
    "Outcomes",
    "PairedComparison",
    "Posterior",
    "Ranks",
    "Rate",
    "RateComparison",
    "RunCounts",
    "Share",
    "TrainingDraw",
    "VarianceSplit",
    "Verdict",
    "WiderVerdict",
    "adjust_for_size",
    "analyze_variance",
    "compare_all_pairs",
    "compare_in_looks",
    "compare_over_datasets",
    "compare_paired",
    "compare_rates",
    "compare_with_baseline",
    "complete",
    "decide",
    "decide_for_new_images",
    "decide_for_new_training",
    "estimate_effects",
    "estimate_rate",
    "find_posterior",
    "interquartile_mean",
    "mark_collapsed",
    "mcnemar_p",
    "pareto_front",
    "plan_looks",
    "plan_looks_at_any_time",
    "rank_arms",
    "spend",
    "split_noise",
    "split_variance",
]
