"""Runs told to other tools as they go, below the output folder: TensorBoard, MLflow, Weights & Biases.

The store stays the truth. A tracker that fails is dropped with a note, and never stops or changes a run.
"""

from cnnjax.trackers.making import TRACKERS, TrackerName, check_trackers, make_trackers
from cnnjax.trackers.tracking import Tracker, Tracking

__all__ = ["TRACKERS", "Tracker", "TrackerName", "Tracking", "check_trackers", "make_trackers"]
