"""Plans of studies that are run until they are decided: the first plan of a comparison is stored, and holds.

The tests hold whenever somebody looks, but only for the arms, the level, the margin and the measure that were chosen
before the first result. So these are stored, and whatever would change them afterwards is refused.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cnnjax.errors import CorruptionError, InputError
from cnnjax.reports.arguments import JudgingArguments, name_option
from cnnjax.reports.rules import Rules
from cnnjax.runs.store import Store
from cnnjax.statistics import Measure, plan_looks_at_any_time
from cnnjax.statistics.sequential import share_level


@dataclass(frozen=True)
class SequentialPlan:
    """What was fixed before the first look at a study that is run until it is decided.

    Attributes:
        study: name of the study.
        baseline: name of the arm that the others are compared with.
        arms: run key with seed 0 of every arm of the family, by name; the baseline is one of them.
        seeds: all seeds that may be run, in their order.
        first: how many of them are run before the first look.
        alpha, margin, measure: as in `cnnjax.statistics.Criteria`.
    """

    study: str
    baseline: str
    arms: Mapping[str, str]
    seeds: tuple[int, ...]
    first: int
    alpha: float
    margin: float
    measure: Measure

    @property
    def level(self) -> float:
        """The level of one comparison, for all its looks together."""
        return share_level(self.alpha, len(self.arms) - 1, at_any_time=True)

    @property
    def rules(self) -> Rules:
        """The rules by which the study is judged."""
        looks = plan_looks_at_any_time(self.first, len(self.seeds), self.level)
        return Rules(self.alpha, self.margin, measure=self.measure, looks=looks, at_any_time=True)

    def shares_comparison(self, keys: Collection[str]) -> bool:
        """Returns whether the arms with these run keys, with seed 0, include a comparison of the plan."""
        return self.arms[self.baseline] in keys and len(set(self.arms.values()) & set(keys)) > 1

    def is_of(self, keys: Collection[str]) -> bool:
        """Returns whether these run keys, with seed 0, are those of its arms."""
        return set(self.arms.values()) == set(keys)

    def to_json(self) -> str:
        """Returns the plan as it is stored."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "SequentialPlan":
        """Returns the plan that `to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError: the text is no plan.
        """
        values: dict[str, Any] = json.loads(text)
        plan = cls(**{**values, "seeds": tuple(values["seeds"]), "measure": Measure(**values["measure"])})
        if plan.baseline not in plan.arms or not 0 < plan.first <= len(plan.seeds) or not plan.rules.looks:
            raise ValueError("its parts do not belong together")
        return plan

    def find_change(self, other: "SequentialPlan") -> str | None:
        """Returns what another plan of the same comparisons would change, such as ``--margin 0.2, not 0.5``."""
        if self.arms[self.baseline] != other.arms[other.baseline]:
            return f"the baseline is {self.baseline}, not {other.baseline}"
        for (what, mine), its in zip(self._list_parts().items(), other._list_parts().values(), strict=True):
            if mine != its:
                return f"{what} {mine}, not {its}"
        return None if other.is_of(self.arms.values()) else "the arms are others"

    def _list_parts(self) -> dict[str, Any]:
        """Returns what holds, besides which arms are compared, as it is written."""
        measure = self.measure
        return {
            "the number of arms is": len(self.arms),
            "the most seeds are": len(self.seeds),
            "the seeds at first are": list(self.seeds[: self.first]),
            "what is compared is": measure.title if measure.is_accuracy else f"the metric {measure.name}",
            "--unit is": "percent" if measure.is_share else "own",
            "--lower-is-better is": not measure.higher_is_better,
            "--chance is": measure.chance,
            "--margin is": float(f"{self.margin * measure.scale:.12g}"),
            "--alpha is": self.alpha,
        }


def list_plans(store: Store) -> list[SequentialPlan]:
    """Returns the stored plans, the first one first.

    Raises:
        CorruptionError: a plan cannot be read.
    """
    try:
        return [SequentialPlan.from_json(text) for text in store.list_plans()]
    except (ValueError, TypeError, KeyError, AttributeError, InputError) as error:
        raise CorruptionError(f"{store.path}: a stored plan cannot be read: {error}") from None


def find_plans(keys: Collection[str], store: Store) -> list[SequentialPlan]:
    """Returns the stored plans that share a comparison with arms, of which the run keys with seed 0 are given."""
    return [plan for plan in list_plans(store) if plan.shares_comparison(keys)]


def remark_on_stopping(keys: Collection[str], store: Store) -> list[str]:
    """Returns a remark for every stored plan by whose results the number of seeds of an arm was chosen.

    Args:
        keys: run keys with seed 0 of the arms that are compared otherwise than by that plan.
        store: the store of their runs.
    """
    plans = (plan for plan in list_plans(store) if set(plan.arms.values()) & set(keys))
    return [f"the seeds of some arms depend on their results: {describe_plan(plan)}" for plan in plans]


def refuse_other_rules(arguments: JudgingArguments, rules: Rules, plan: SequentialPlan) -> None:
    """Raises `InputError` if an option asks for other rules than those of the plan.

    Args:
        arguments: the arguments as typed; an option with its default value asks for nothing.
        rules: the rules that they ask for.
        plan: the plan.
    """
    default = type(arguments)()
    measure = ("by", "unit", "lower_is_better", "chance")
    agrees = {
        **dict.fromkeys(measure, rules.measure == plan.measure),
        "alpha": arguments.alpha == plan.alpha,
        "margin": arguments.margin is not None and arguments.margin / plan.measure.scale == plan.margin,
    }
    for name, is_same in agrees.items():
        value = getattr(arguments, name)
        if value != getattr(default, name) and not is_same:
            raise InputError(f"{name_option(name)} {value}: {describe_plan(plan)}, which holds; leave the option out")


def describe_plan(plan: SequentialPlan) -> str:
    """Returns in a few words which plan it is."""
    margin = f"{plan.measure.write_margin(plan.margin)}{plan.measure.points}"
    return (
        f"the study {plan.study} is run until it is decided by a stored plan (baseline {plan.baseline}, "
        f"{len(plan.arms)} arms, --alpha {plan.alpha:g}, margin {margin}, {plan.measure.title}, "
        f"at most {len(plan.seeds)} seeds)"
    )
