"""The Pareto front: a hand-worked case, and its definition for any points."""

from hypothesis import given
from hypothesis import strategies as st

from cnnjax.statistics import interquartile_mean, pareto_front

points = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12)


def test_the_pareto_front_of_a_hand_worked_case():
    sizes, accuracies = [10, 20, 20, 30, 40, 10], [0.90, 0.95, 0.94, 0.95, 0.97, 0.90]
    # 30 is no better than 20, and of the two of 20 one is worse; both of size 10 are alike.
    assert pareto_front(sizes, accuracies) == (0, 5, 1, 4)


@given(points)
def test_a_point_is_on_the_front_if_none_dominates_it(pairs):
    sizes, accuracies = zip(*pairs, strict=True)
    front = pareto_front(sizes, accuracies)

    def dominates(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    assert set(front) == {i for i, b in enumerate(pairs) if not any(dominates(a, b) for a in pairs)}


def test_interquartile_means_of_hand_worked_cases():
    assert interquartile_mean([1.0]) == 1.0
    assert interquartile_mean([1.0, 3.0]) == 2.0
    assert interquartile_mean([0.0, 1.0, 3.0, 100.0]) == 2.0
    assert interquartile_mean([0.0, 1.0, 2.0, 4.0, 100.0]) == (0.75 * 1 + 2 + 0.75 * 4) / 2.5
