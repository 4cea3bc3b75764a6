"""The measurements as tables and as a chart."""

import functools
import io
import statistics
from collections.abc import Callable, Sequence
from typing import Any, get_args

from cnnjax.console.tables import Column, Document, Table, Value
from cnnjax.errors import UnavailableError
from experiments.measure.contestants.grids import GridResult, tabulate_grids
from experiments.measure.contestants.machine import write_machine
from experiments.measure.contestants.measuring import CONTESTANTS, Failure, Result
from experiments.measure.contestants.networks import NETWORKS, TEXTBOOK, Precision
from experiments.measure.contestants.serving import BATCH, MNIST

EPOCH = MNIST // BATCH
"""Steps of an epoch of MNIST."""
OURS = "cnnjax"
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def describe(
    results: Sequence[Result],
    grids: Sequence[GridResult],
    failures: Sequence[Failure],
    method: Sequence[str],
    peak: float,
) -> Document:
    """Returns the tables, with a description of the method and the machine below.

    The textbook network in float32 has a table of its own, with the fastest contestant first. If more was measured,
    there are tables of all networks by contestant.

    Args:
        results: the measurements, at least one.
        grids: measurements of the grid; empty if it was not measured.
        failures: what could not be measured.
        method: how it was measured, one line each.
        peak: floating-point operations per second of one large matrix product.
    """
    textbook = find_textbook(results)
    tables = [_tabulate_textbook(textbook, peak)] if textbook else []
    tables += [tabulate_grids(grids)] if grids else []
    notes = [*method]
    if textbook:
        notes += [
            f"GFLOP/s: of the direct convolution's {TEXTBOOK.count_flops() / 1e6:.1f} MFLOP an image, forward and "
            f"backward; dot: {peak / 1e9:.0f} GFLOP/s, one lax.dot of 2048x2048 in float32",
            "two processes: side by side, each with one core and one thread, an epoch of both divided by two",
        ]
    if len(textbook) < len(results):
        tables += _tabulate_networks(results)
        notes += [
            "in parentheses: how many times the milliseconds of cnnjax; fastest other: the smallest of these numbers",
            *(
                f"{name}: images of {'x'.join(map(str, network.image_shape))}, {network.count_flops() / 1e6:.1f} MFLOP "
                "an image, forward and backward"
                for name, network in NETWORKS.items()
                if any(result.network == name for result in results)
            ),
        ]
    notes += [
        "compilation: the first step of a process with empty caches, less a later one; that of cnnjax also makes the "
        "first weights and compiles the evaluation",
        "start: from the start of the process to the end of its first step, at its second start",
        *(f"not measured: {each.name}, {each.network}, {each.precision}: {each.reason}" for each in failures),
        write_machine(results[0].device),
    ]
    title = "Training the textbook network" if len(textbook) == len(results) else "Training convolutional networks"
    return Document(title, (), tuple(tables), tuple(notes))


def find_textbook(results: Sequence[Result]) -> list[Result]:
    """Returns the measurements of the textbook network in float32, with the fastest contestant first."""
    own = [result for result in results if (result.network, result.precision) == (TEXTBOOK.name, "float32")]
    return sorted(own, key=_step)


def draw(results: Sequence[Result]) -> bytes:
    """Returns a PNG: bars of the textbook network in float32, and for several networks their ratios to cnnjax.

    Bars are seconds per epoch, with the range of the measurements. If cnnjax was not measured, there are no ratios.

    Raises:
        UnavailableError: there are neither bars nor ratios to draw.
    """
    from matplotlib.figure import Figure

    textbook = find_textbook(results)[::-1]
    panels: list[tuple[float, Callable[[Any], None]]] = []
    if textbook:
        panels.append((0.5 + 0.55 * len(textbook), functools.partial(_draw_bars, results=textbook)))
    if len(textbook) < len(results):
        for precision in PRECISIONS:
            own = [result for result in results if result.precision == precision and result.name != OURS]
            ratios = [(each, ratio) for each in own if (ratio := _compare(each, results)) is not None]
            if ratios:
                height = 1.2 + 0.35 * len({each.network for each, _ in ratios})
                panels.append((height, functools.partial(_draw_ratios, ratios=ratios)))
    if not panels:
        raise UnavailableError("a chart needs the textbook network in float32, or cnnjax and another contestant")
    heights = [height for height, _ in panels]
    figure = Figure(figsize=(7, sum(heights)), layout="constrained")
    rows = figure.subplots(len(panels), height_ratios=heights, squeeze=False)[:, 0]
    for axes, (_, fill) in zip(rows, panels, strict=True):
        fill(axes)
        axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=150, format="png")
    return picture.getvalue()


def _draw_bars(axes: Any, results: Sequence[Result]) -> None:
    """Draws seconds per epoch, with a bar for the one process and another for the two."""
    series = [("one process, all cores", 0.2, "#1f4e79", [result.steps for result in results])]
    if all(result.pair_steps for result in results):
        series.append(("two processes, a core each", -0.2, "#e0a030", [result.pair_steps for result in results]))
    for label, offset, colour, measured in series:
        epochs = [[EPOCH * step for step in steps] for steps in measured]
        medians = [statistics.median(each) for each in epochs]
        spread = [
            [median - min(each) for median, each in zip(medians, epochs, strict=True)],
            [max(each) - median for median, each in zip(medians, epochs, strict=True)],
        ]
        places = [place + offset for place in range(len(results))]
        axes.barh(places, medians, 0.36, xerr=spread, color=colour, label=label, error_kw={"capsize": 2})
        for place, median, more in zip(places, medians, spread[1], strict=True):
            axes.text(median + more, place, f"  {median:.1f}", va="center", fontsize=8)
    axes.set_yticks(range(len(results)), [result.name for result in results])
    axes.set_title("The textbook network, float32", loc="left", fontsize=10)
    axes.set_xlabel("seconds an epoch of 60,000 images (less is better)")
    axes.margins(x=0.12)
    axes.legend(frameon=False)


def _draw_ratios(axes: Any, ratios: Sequence[tuple[Result, float]]) -> None:
    """Draws a line of dots for each network: the time of every contestant, as a multiple of that of cnnjax."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    networks = [name for name in NETWORKS if any(result.network == name for result, _ in ratios)][::-1]
    styles = zip(
        [name for name in CONTESTANTS if name != OURS],
        ("#9aa0a6", "#e0a030", "#b5651d", "#8ab8e6", "#3d7ab8", "#7a2048"),
        "ov^sDP",
        strict=True,
    )
    for name, colour, marker in styles:
        own = [(ratio, networks.index(result.network)) for result, ratio in ratios if result.name == name]
        if own:
            axes.scatter(*zip(*own, strict=True), s=36, color=colour, marker=marker, label=name, alpha=0.9)
    axes.axvline(1, color="#1f4e79")
    axes.set_xscale("log")
    low, high = min(ratio for _, ratio in ratios), max(ratio for _, ratio in ratios)
    axes.set_xlim(min(low, 1) / 1.2, max(high, 1) * 1.2)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if min(low, 1) / 1.2 <= tick <= high * 1.2]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticklabels([f"{tick:g}" for tick in ticks])
    axes.set_yticks(range(len(networks)), networks)
    axes.set_ylim(-0.6, len(networks) - 0.4)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_title(f"All networks, {ratios[0][0].precision}", loc="left", fontsize=10)
    axes.set_xlabel("time of a step, as a multiple of cnnjax's (right of the line is slower)")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def _tabulate_textbook(results: Sequence[Result], peak: float) -> Table:
    columns = (
        Column("contestant"),
        Column("s/epoch", ".2f", True),
        Column("range", right=True),
        Column("to cnnjax", ".2f", True),
        Column("images/s", ",.0f", True),
        Column("GFLOP/s", ".0f", True),
        Column("% of dot", ".0f", True),
        Column("two processes: s/epoch", ".2f", True),
        Column("to cnnjax", ".2f", True),
        Column("compilation s", ".1f", True),
        Column("start s", ".1f", True),
        Column("peak MiB", ",.0f", True),
    )
    flops = TEXTBOOK.count_flops()
    pairs = {result.name: EPOCH * statistics.median(result.pair_steps) for result in results if result.pair_steps}
    rows = []
    for result in results:
        images, pair = BATCH / _step(result), pairs.get(result.name)
        rows.append(
            (
                result.name,
                EPOCH * _step(result),
                f"{EPOCH * min(result.steps):.1f}-{EPOCH * max(result.steps):.1f}",
                _compare(result, results),
                images,
                images * flops / 1e9,
                100 * images * flops / peak,
                pair,
                pair / pairs[OURS] if pair and OURS in pairs else None,
                result.compile_seconds,
                result.start_seconds,
                result.memory / 2**20,
            )
        )
    return Table(columns, tuple(rows), "The textbook network, float32")


def _tabulate_networks(results: Sequence[Result]) -> list[Table]:
    """Returns the tables of all networks."""
    measured = [each for each in PRECISIONS if any(result.precision == each for result in results)]
    tables = [
        _tabulate_steps([result for result in results if result.precision == precision], precision)
        for precision in measured
    ]
    if len(measured) > 1 and any(_compare(result, results) for result in results if result.name != OURS):
        tables.append(_tabulate_best(results))
    return [
        *tables,
        _tabulate_costs(results, "Seconds of compilation", ".1f", lambda result: result.compile_seconds),
        _tabulate_costs(results, "Seconds of a start", ".1f", lambda result: result.start_seconds),
        _tabulate_costs(results, "Peak memory, MiB", ",.0f", lambda result: result.memory / 2**20),
    ]


def _tabulate_steps(results: Sequence[Result], precision: Precision) -> Table:
    """Returns the milliseconds of a step, with the geometric means of the ratios in the last row."""
    names = _list_names(results)
    columns = (Column("network"), *(Column(name, right=True) for name in names), Column("fastest other", ".2f", True))
    rows: list[tuple[Value, ...]] = []
    ratios: list[list[float | None]] = []
    for network in _list_networks(results):
        own = {result.name: result for result in results if result.network == network}
        compared = [_compare(own[name], results) if name in own else None for name in names]
        others = [ratio for name, ratio in zip(names, compared, strict=True) if ratio is not None and name != OURS]
        ratios.append([*compared, min(others, default=None)])
        cells = [
            _write_step(own[name], ratio) if name in own else None for name, ratio in zip(names, compared, strict=True)
        ]
        rows.append((network, *cells, ratios[-1][-1]))
    *means, mean = [_mean(column) for column in zip(*ratios, strict=True)]
    if OURS in names:
        rows.append(("geometric mean", *(None if each is None else f"({each:.2f})" for each in means), mean))
    return Table(columns, tuple(rows), f"Milliseconds a step, {precision}")


def _tabulate_best(results: Sequence[Result]) -> Table:
    """Returns the fastest precision of cnnjax beside the fastest other contestant at its fastest precision."""
    columns = (
        Column("network"),
        Column("cnnjax: ms", ".1f", True),
        Column("precision"),
        Column("fastest other: ms", ".1f", True),
        Column("contestant"),
        Column("precision"),
        Column("to cnnjax", ".2f", True),
    )
    rows: list[tuple[Value, ...]] = []
    ratios = []
    for network in _list_networks(results):
        own = [result for result in results if result.network == network]
        ours = min((result for result in own if result.name == OURS), key=_step, default=None)
        other = min((result for result in own if result.name != OURS), key=_step, default=None)
        if ours and other:
            ratios.append(_step(other) / _step(ours))
            fastest = (1000 * _step(other), other.name, other.precision)
            rows.append((network, 1000 * _step(ours), ours.precision, *fastest, ratios[-1]))
    rows.append(("geometric mean", *[None] * 5, _mean(ratios)))
    return Table(columns, tuple(rows), "Best precision against best precision")


def _tabulate_costs(results: Sequence[Result], title: str, form: str, cost: Callable[[Result], float]) -> Table:
    names = _list_names(results)
    columns = (Column("network"), Column("precision"), *(Column(name, form, True) for name in names))
    rows = []
    for network in _list_networks(results):
        for precision in PRECISIONS:
            own = {r.name: cost(r) for r in results if (r.network, r.precision) == (network, precision)}
            if own:
                rows.append((network, precision, *(own.get(name) for name in names)))
    return Table(columns, tuple(rows), title)


def _list_names(results: Sequence[Result]) -> list[str]:
    return [name for name in CONTESTANTS if any(result.name == name for result in results)]


def _list_networks(results: Sequence[Result]) -> list[str]:
    return [name for name in NETWORKS if any(result.network == name for result in results)]


def _step(result: Result) -> float:
    """Returns the median of the seconds of a step."""
    return statistics.median(result.steps)


def _compare(result: Result, results: Sequence[Result]) -> float | None:
    """Returns a time divided by that of cnnjax, for the same network and precision; ``None`` without that."""
    same = (
        (other.name, other.network, other.precision) == (OURS, result.network, result.precision) for other in results
    )
    ours = next((other for other, is_same in zip(results, same, strict=True) if is_same), None)
    return _step(result) / _step(ours) if ours else None


def _mean(ratios: Sequence[float | None]) -> float | None:
    """Returns the geometric mean; ``None`` if one is missing, as the mean would be of other networks."""
    known = [ratio for ratio in ratios if ratio is not None]
    return statistics.geometric_mean(known) if known and len(known) == len(ratios) else None


def _write_step(result: Result, ratio: float | None) -> str:
    return f"{1000 * _step(result):.1f}" + ("" if ratio is None else f" ({ratio:.2f})")
