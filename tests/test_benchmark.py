"""The benchmark: its measurements, its tables, and how it refuses bad input."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import ModelConfig
from cnnjax.errors import InputError, UnavailableError
from cnnjax.models.table import Summary
from experiments.measure import benchmark
from experiments.measure.benchmark import main
from experiments.measure.contestants import grids
from experiments.measure.contestants.grids import GridResult, TrialQueue, list_trials
from experiments.measure.contestants.measuring import CONTESTANTS, Case, Contestant, Failure, Measuring, Plan, Result
from experiments.measure.contestants.networks import CLASSES, FILTERS, GRID, NETWORKS, TEXTBOOK, WINDOWS, Network
from experiments.measure.contestants.report import describe, draw
from experiments.measure.contestants.serving import load_dataset

MIB = 2**20


def make_result(name, *seconds, network="textbook", precision="float32", start=2.5, compilation=1.5, pair=(), mib=400):
    return Result(name, network, precision, "cpu", 62_346, compilation, start, seconds, pair, mib * MIB, 0.5)


RESULTS = [
    make_result("torch", 0.02, 0.01, 0.015, start=3.5, compilation=0.5, pair=(0.02, 0.02, 0.02), mib=800),
    make_result("cnnjax", 0.005, 0.0075, 0.01, pair=(0.01, 0.01, 0.01)),
]
NETWORK_RESULTS = [
    make_result(name, milliseconds / 1000, network=network, precision=precision)
    for name, network, precision, milliseconds in (
        ("cnnjax", "textbook", "float32", 10),
        ("torch", "textbook", "float32", 20),
        ("flax", "textbook", "float32", 40),
        ("cnnjax", "vgg", "float32", 100),
        ("torch", "vgg", "float32", 800),
        ("cnnjax", "textbook", "bfloat16", 8),
        ("torch", "textbook", "bfloat16", 12),
        ("cnnjax", "vgg", "bfloat16", 200),
        ("torch", "vgg", "bfloat16", 50),
    )
]
GRIDS = [GridResult("torch", (90.0, 110.0), 60, 0.9), GridResult("cnnjax", (50.0, 30.0), 60, 0.91)]

COUNT = """
import importlib, json, sys
from experiments.measure.contestants.networks import NETWORKS
from experiments.measure.contestants.serving import Options
module = importlib.import_module(sys.argv[1])
networks = NETWORKS.values()
print(json.dumps({each.name: module.make_trainer(Options(), each, 0).parameters for each in networks}))
"""
"""Prints the numbers of parameters of all networks in one library, in a process where no other library is loaded."""


class TestNetworks:
    def test_the_textbook_network_is_the_default_of_the_library(self):
        assert TEXTBOOK.make_config() == ModelConfig()

    def test_the_grid_has_every_combination_of_filters_windows_and_padding_once(self):
        assert len({network.make_config() for network in GRID.values()}) == 12

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["flax", "keras-jax", "torch"])
    def test_a_library_has_as_many_parameters_as_the_layer_table(self, name):
        contestant = CONTESTANTS[name]
        if not contestant.is_installed():
            pytest.skip(f"{name} is not installed")
        words = [sys.executable, "-c", COUNT, f"experiments.measure.contestants.{contestant.module}"]
        environment = {**os.environ, **contestant.environment}
        result = subprocess.run(words, capture_output=True, text=True, timeout=600, env=environment)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout) == {
            network.name: Summary(network.make_config().list_layers(network.image_shape, CLASSES)).parameters
            for network in NETWORKS.values()
        }

    @pytest.mark.parametrize("name", NETWORKS)
    def test_the_description_has_the_parameters_of_the_network_of_cnnjax_and_its_outputs(self, name):
        from experiments.measure.contestants.flax_network import make_module

        network = NETWORKS[name]
        own = network.make_config().build(CLASSES, jnp.dtype("float32"))
        described = make_module(network, jnp.float32)
        images = jax.random.uniform(jax.random.key(0), (2, *network.image_shape))
        variables = jax.jit(own.init)(jax.random.key(1), images)
        shapes = jax.eval_shape(lambda: described.init(jax.random.key(1), images, False))
        leaves, tree = jax.tree.flatten(shapes)
        assert [leaf.shape for leaf in leaves] == [leaf.shape for leaf in jax.tree.leaves(variables)]
        same = jax.tree.unflatten(tree, jax.tree.leaves(variables))
        outputs = jax.jit(described.apply, static_argnums=2)(same, images, False)
        np.testing.assert_allclose(outputs, jax.jit(own.apply)(variables, images), atol=1e-3)

    def test_images_are_mnist_or_noise_of_the_shape_that_is_asked_for(self):
        assert load_dataset((28, 28, 1)).name == "mnist"
        noise = load_dataset((32, 32, 3))
        assert (noise.train.images.shape, noise.test.images.shape) == ((10_000, 32, 32, 3), (1_000, 32, 32, 3))
        assert set(noise.train.labels) == set(range(CLASSES))


class TestTables:
    def test_the_textbook_network_has_medians_ratios_and_rates(self):
        (table,) = describe(RESULTS, [], [], ["a note"], peak=2e11).tables
        first, second = table.rows
        assert first[:5] == pytest.approx(("cnnjax", 4.5, "3.0-6.0", 1.0, 60_000 / 4.5))
        assert second[:5] == pytest.approx(("torch", 9.0, "6.0-12.0", 2.0, 60_000 / 9))
        flops = 3 * 7_495_680 - 921_600
        assert first[5:7] == pytest.approx((60_000 * flops / 4.5 / 1e9, 100 * 60_000 * flops / 4.5 / 2e11))
        assert first[7:] == (6.0, 1.0, 1.5, 2.5, 400.0)
        assert second[7:] == (12.0, 2.0, 0.5, 3.5, 800.0)

    def test_the_grids_have_a_table_of_their_own(self):
        _, table = describe(RESULTS, GRIDS, [], [], peak=2e11).tables
        assert table.rows == (
            ("cnnjax", 40.0, "30-50", 1.0, 5400.0, 0.91),
            ("torch", 100.0, "90-110", 2.5, 2160.0, 0.9),
        )

    def test_without_cnnjax_there_are_no_ratios(self):
        first, second = describe(RESULTS[:1], GRIDS[:1], [], [], peak=2e11).tables
        assert (first.rows[0][3], first.rows[0][8], second.rows[0][3]) == (None, None, None)
        others = [result for result in NETWORK_RESULTS if result.name != "cnnjax"]
        tables = describe(others, [], [], [], peak=2e11).tables
        assert tables[1].rows == (("textbook", "40.0", "20.0", None), ("vgg", None, "800.0", None))
        assert [table.title for table in tables if "Best" in table.title] == []

    def test_a_precision_has_the_milliseconds_of_all_networks_and_the_geometric_mean_of_the_ratios(self):
        tables = describe(NETWORK_RESULTS, [], [], [], peak=2e11).tables
        single, half = (table for table in tables if table.title.startswith("Milliseconds"))
        assert [column.heading for column in single.columns] == ["network", "cnnjax", "flax", "torch", "fastest other"]
        assert single.rows == (
            ("textbook", "10.0 (1.00)", "40.0 (4.00)", "20.0 (2.00)", 2.0),
            ("vgg", "100.0 (1.00)", None, "800.0 (8.00)", 8.0),
            # Flax has no mean, as it lacks a network; that of torch is the square root of 2 x 8.
            ("geometric mean", "(1.00)", None, "(4.00)", pytest.approx(4)),
        )
        assert half.rows[:2] == (
            ("textbook", "8.0 (1.00)", "12.0 (1.50)", 1.5),
            ("vgg", "200.0 (1.00)", "50.0 (0.25)", 0.25),
        )

    def test_the_best_precision_of_cnnjax_is_compared_with_the_best_of_the_others(self):
        tables = describe(NETWORK_RESULTS, [], [], [], peak=2e11).tables
        (best,) = (table for table in tables if table.title.startswith("Best"))
        assert best.rows == (
            ("textbook", 8.0, "bfloat16", 12.0, "torch", "bfloat16", pytest.approx(1.5)),
            ("vgg", 100.0, "float32", 50.0, "torch", "bfloat16", pytest.approx(0.5)),
            ("geometric mean", *[None] * 5, pytest.approx(0.75**0.5)),
        )

    def test_without_another_contestant_nothing_is_compared(self):
        tables = describe(
            [result for result in NETWORK_RESULTS if result.name == "cnnjax"], [], [], [], peak=2e11
        ).tables
        assert [table.title for table in tables if table.title.startswith("Best")] == []

    def test_costs_have_a_row_for_every_network_and_precision(self):
        compilation, start, memory = describe(NETWORK_RESULTS, [], [], [], peak=2e11).tables[-3:]
        assert compilation.rows[:2] == (
            ("textbook", "float32", 1.5, 1.5, 1.5),
            ("textbook", "bfloat16", 1.5, None, 1.5),
        )
        assert start.rows[2] == ("vgg", "float32", 2.5, None, 2.5)
        assert memory.rows[3] == ("vgg", "bfloat16", 400.0, None, 400.0)

    def test_what_could_not_be_measured_is_named_with_its_reason(self):
        failure = Failure("torch-compiled", "vgg", "float32", "no C++ compiler")
        notes = describe(RESULTS, [], [failure], [], peak=2e11).notes
        assert [note for note in notes if "torch-compiled" in note and "vgg" in note and "no C++ compiler" in note]


class TestChart:
    @pytest.mark.parametrize("results", [RESULTS, NETWORK_RESULTS, NETWORK_RESULTS[3:5]])
    def test_is_a_picture(self, results):
        assert draw(results).startswith(b"\x89PNG")

    def test_without_anything_to_compare_is_refused_in_one_line(self):
        with pytest.raises(UnavailableError, match="a chart needs"):
            draw([result for result in NETWORK_RESULTS if (result.name, result.network) == ("cnnjax", "vgg")])


class TestMeasuring:
    def test_a_contestant_that_cannot_start_is_a_failure_with_the_reason_in_its_log(self):
        measuring = Measuring([Contestant("broken", "no_such_network", ())], Case(), Plan())
        assert measuring.run() == []
        (failure,) = measuring.failures
        assert (failure.name, failure.network, failure.precision) == ("broken", "textbook", "float32")
        assert "No module named" in failure.reason

    def test_a_benchmark_of_which_nothing_could_be_measured_ends_with_the_reason(self, monkeypatch):
        monkeypatch.setitem(CONTESTANTS, "flax", Contestant("flax", "no_such_network", ()))
        monkeypatch.setattr("experiments.measure.benchmark.measure_dot", lambda: 1e9)
        with pytest.raises(UnavailableError, match=r"flax has ended: .*No module named"):
            main(["--contestant", "flax"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--contestant", "kears-jax"], r"--contestant='kears-jax': must be one of cnnjax, .*did you mean 'keras-jax'"),
        (["--contestant", "flax", "--contestant", "flax"], "must each be given once"),
        (["--grid-contestant", "flax"], "--grid-contestant flax: needs --grid IMAGES"),
        (
            ["--contestant", "flax", "--grid", "100", "--grid-contestant", "cnnjax"],
            "--grid-contestant='cnnjax': must be one of flax",
        ),
        (["--network", "vggg"], r"--network='vggg': must be one of textbook, .*did you mean 'vgg'"),
        (["--precision", "float16"], r"--precision='float16': must be one of float32, bfloat16"),
        (["--network", "vgg", "--steps", "150"], "--steps=150: must be <= 100, the steps of an epoch"),
        (["--seconds", "0"], "--seconds"),
        (["--contestant", "flax", "--network", "vgg", "--chart", "vgg.png"], "--chart: needs"),
        (["--steps", "60"], "--steps=60: must be a multiple of 50"),
        (["--steps", "650"], "--steps=650: must be <= 600, the steps of an epoch"),
        (["--repeats", "0"], "--repeats=0: must be >= 1"),
        (["--markdown", "nowhere/table.md"], "--markdown nowhere/table.md: its folder does not exist"),
        (["--grid", "150"], "--grid=150: must be a multiple of 100 and <= 60000"),
        (["--grid", "0"], "--grid=0: must be >= 1"),
        (["--grid", "60100"], "--grid=60100: must be a multiple of 100 and <= 60000"),
        (["--grid-seeds", "0"], "--grid-seeds=0: must be >= 1"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(words, message):
    with pytest.raises(InputError, match=message):
        main(words)


def test_what_was_measured_before_an_interruption_is_written(tmp_path, monkeypatch, capsys):
    class Interrupted:
        failures = ()

        def __init__(self, contestants, case, plan):
            self.case = case

        def run(self):
            if self.case.network.name != TEXTBOOK.name:
                raise KeyboardInterrupt
            return RESULTS

    monkeypatch.setattr(benchmark, "Measuring", Interrupted)
    monkeypatch.setattr(benchmark, "measure_dot", lambda: 1e11)
    words = ["--network", "all", "--contestant", "cnnjax", "--contestant", "flax"]
    with pytest.raises(KeyboardInterrupt):
        main([*words, "--markdown", str(tmp_path / "benchmark.md")])
    assert "2.00" in capsys.readouterr().out  # torch takes twice as long
    assert "| torch |" in (tmp_path / "benchmark.md").read_text()


@pytest.mark.slow
def test_cnnjax_and_flax_are_measured_and_both_learn(monkeypatch, capsys):
    paddings = {network.name: network for network in GRID.values() if network.name.startswith("(16, 32), 3, ")}
    for name, value in {"GRID": paddings, "FILTERS": FILTERS[:1], "WINDOWS": WINDOWS[:1]}.items():
        monkeypatch.setattr(grids, name, value)
    words = ["--contestant", "cnnjax", "--contestant", "flax", "--steps", "50", "--repeats", "2", "--json"]
    assert main([*words, "--grid", "100", "--grid-seeds", "1"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in measured["results"]] == ["cnnjax", "flax"]
    for each in measured["results"]:
        assert len(each["steps"]) == 2
        assert each["parameters"] == 62_346
        assert each["start_seconds"] > 0 <= each["compile_seconds"]
        assert 0 < each["loss"] < 2.3  # less than of guessing among ten classes
        assert each["memory"] > 2**20
    assert measured["dot_flops_a_second"] > 0
    assert [(each["name"], each["trials"], len(each["seconds"])) for each in measured["grids"]] == [
        ("cnnjax", 2, 1),
        ("flax", 2, 1),
    ]
    assert all(0.03 < each["accuracy"] < 0.5 for each in measured["grids"])  # one step is close to guessing


def test_a_process_finishes_its_network_then_takes_the_most_expensive_one_and_finally_shares():
    queue = TrialQueue(3)
    dearest, second = sorted(GRID.values(), key=Network.count_flops, reverse=True)[:2]
    first = queue.take(None)
    assert first == (dearest, 0)
    assert queue.take(None) == (second, 0)
    assert [queue.take(dearest), queue.take(dearest)] == [(dearest, 1), (dearest, 2)]
    taken = [first, (second, 0), (dearest, 1), (dearest, 2)]
    last = dearest
    while trial := queue.take(last):
        taken.append(trial)
        last = trial[0]
    assert last == second  # which was begun, and is helped with when nothing else is left
    assert sorted(map(repr, taken)) == sorted(map(repr, list_trials(3)))
