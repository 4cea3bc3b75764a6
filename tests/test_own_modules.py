"""Flax modules of the user: read by their import path, checked, sized, trained and stored."""

import functools
import json
import os
import re
import sqlite3
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax import lax

from ablations import expand, read_dict
from ablations.execution.coordinator import run_grid
from ablations.execution.work import Policy
from cnnjax import DataConfig, InputError, RunConfig, Store, TrainConfig, fit, load_run, summarize
from cnnjax.errors import CodeError
from cnnjax.layers import conv_general_dilated
from cnnjax.models.adapter import read_flags
from cnnjax.models.own_module import ModuleConfig, describe_module
from cnnjax.settings.references import read_source
from grid_helpers import ScriptedExecutor, Watcher

ROOT = Path(__file__).parent.parent
NETWORKS = ROOT / "experiments/networks"
EXAMPLES = {
    "lenet.py:LeNet5": {"pool": "max"},
    "vgg.py:VGG": {"blocks": [1, 1], "width": 4, "dense": 8},
    "resnet.py:ResNet": {"depth": 8, "width": 4},
    "separable.py:Separable": {"width": 4, "blocks": 2},
}


def read(module, **fields):
    return ModuleConfig.from_dict({"module": module, **fields})


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Returns a function that writes a file of source in the current folder."""
    monkeypatch.chdir(tmp_path)

    def write_source(text, name="nets.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write_source


TINY = """
    import flax.linen as nn

    class Tiny(nn.Module):
        num_classes: int
        width: int = 4

        @nn.compact
        def __call__(self, images):
            return nn.Dense(self.num_classes)(nn.relu(nn.Conv(self.width, (3, 3), 4)(images)).mean((1, 2)))
"""


class TestTraining:
    @pytest.mark.parametrize("name", EXAMPLES)
    def test_equals_a_plain_flax_loop(self, name):
        config = RunConfig(
            read(str(NETWORKS / name), **EXAMPLES[name]),
            TrainConfig(epochs=2, batch_size=20, learning_rate=0.05),
            DataConfig(train_size=60),
            seed=3,
        )
        module = config.model.make(10, jnp.dtype("float32"))
        run = fit(config, out=None)
        variables, losses = train_plainly(module, config)
        np.testing.assert_allclose([epoch.loss for epoch in run.history], losses, rtol=1e-4)
        own = {"params": run.params, **run.collections}
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=5e-3, atol=5e-4), own, dict(variables))

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_computes_the_layers_of_an_example_in_the_precision_of_the_training(self, name):
        config = read(str(NETWORKS / name), **EXAMPLES[name])
        module = config.make(10, jnp.dtype("bfloat16"))
        images = jnp.zeros((2, 28, 28, 1))
        _, state = jax.eval_shape(
            lambda: module.init_with_output(jax.random.key(0), images, capture_intermediates=True)
        )
        outputs = jax.tree.leaves(state["intermediates"])
        assert {output.dtype for output in outputs} == {jnp.dtype("bfloat16")}
        assert {leaf.dtype for leaf in jax.tree.leaves(state["params"])} == {jnp.dtype("float32")}

    def test_adds_the_losses_that_the_module_sows(self, write):
        write("""
            import flax.linen as nn

            class Penalized(nn.Module):
                classes: int
                penalty: float

                @nn.compact
                def __call__(self, images):
                    logits = nn.Dense(self.classes)(images.reshape(len(images), -1))
                    self.sow("losses", "constant", self.penalty)
                    return logits
        """)
        data, train = DataConfig(train_size=20), TrainConfig(epochs=1, batch_size=20)
        first, second = (
            fit(RunConfig(read("nets.py:Penalized", penalty=penalty), train, data), out=None) for penalty in (0.0, 2.5)
        )
        assert second.history[0].loss == pytest.approx(first.history[0].loss + 2.5, rel=1e-6)
        assert second.record.test_loss == first.record.test_loss
        assert second.collections == {}

    def test_any_collection_and_any_random_stream(self, write, tmp_path):
        write("""
            import flax.linen as nn
            import jax
            import jax.numpy as jnp

            class Noisy(nn.Module):
                classes: int

                @nn.compact
                def __call__(self, images, deterministic=True):
                    calls = self.variable("counts", "calls", lambda: jnp.zeros((), jnp.int32))
                    if not deterministic:
                        calls.value += 1
                        images = images + 0.1 * jax.random.normal(self.make_rng("noise"), images.shape)
                    return nn.Dense(self.classes)(images.reshape(len(images), -1))
        """)
        config = RunConfig(read("nets.py:Noisy"), TrainConfig(epochs=2, batch_size=20), DataConfig(train_size=60))
        run = fit(config, tmp_path / "runs")
        assert run.collections["counts"]["calls"] == 6
        assert load_run(run.key, tmp_path / "runs").collections["counts"]["calls"] == 6

    def test_an_instance_is_the_same_run_as_its_import_path(self, write, monkeypatch, tmp_path):
        write(TINY, "tiny_network.py")
        monkeypatch.syspath_prepend(str(tmp_path))
        import tiny_network

        instance = RunConfig(model=tiny_network.Tiny(num_classes=10, width=6))
        assert instance.key == RunConfig(model=read("tiny_network:Tiny", width=6)).key
        assert instance.key != RunConfig(model=read("tiny_network:Tiny", width=5)).key
        assert RunConfig.from_json(instance.to_json()) == instance

    def test_a_stored_run_predicts_and_refuses_other_code(self, write, tmp_path):
        path = write(TINY)
        run = fit(RunConfig(read("nets.py:Tiny"), TrainConfig(epochs=1), DataConfig(train_size=100)), tmp_path / "runs")
        images = np.zeros((2, 28, 28, 1), np.uint8)
        assert (load_run(run.key, tmp_path / "runs").predict(images) == run.predict(images)).all()
        path.write_text(path.read_text() + "\n# edited\n")
        loaded = load_run(run.key, tmp_path / "runs")
        assert loaded.record.test_accuracy == run.record.test_accuracy
        with pytest.raises(InputError, match=r"nets.py:Tiny.*source"):
            loaded.record.config.model.make(10, jnp.dtype("float32"))

    def test_the_store_keeps_the_source_and_never_runs_it(self, write, tmp_path):
        path = write("from blocks import WIDTH\n" + textwrap.dedent(TINY))
        write("WIDTH = 4\n", "blocks.py")
        out = tmp_path / "runs"
        run = fit(RunConfig(read("nets.py:Tiny"), TrainConfig(epochs=1), DataConfig(train_size=100)), out)
        code = load_run(run.key, out).record.provenance["code"]["nets.py:Tiny"]
        assert code["files"] == {"blocks.py": "WIDTH = 4\n", "nets.py": path.read_text()}
        hostile = json.dumps(code["files"]).replace("WIDTH = 4", "open('was-run', 'w')")
        with sqlite3.connect(out / "runs.sqlite") as connection:
            text = connection.execute("SELECT provenance FROM runs").fetchone()[0]
            provenance = {**json.loads(text), "code": {"nets.py:Tiny": {**code, "files": json.loads(hostile)}}}
            connection.execute("UPDATE runs SET provenance = ?", (json.dumps(provenance),))
        path.unlink()
        for arguments in (
            ["experiments.explain", "run", "--out", out],
            ["experiments.compare", "--a", "model.width=3", "--b", "model.width=4", "--out", out],
            ["ablations.status", "--out", out],
            ["ablations.report", "--out", out],
        ):
            words = [sys.executable, "-m", *map(str, arguments)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            result = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
            assert "Traceback" not in result.stderr
        assert load_run(run.key, out).record.config.model.to_dict()["width"] == 4
        assert not (tmp_path / "was-run").exists()


def train_plainly(module, config):
    """Trains in a loop of jitted steps, as users of Flax do; returns the variables and the mean loss of each epoch."""
    from cnnjax.data.loading import load_data

    dataset, train = load_data(config.data), config.train
    size = config.data.train_size
    images, labels = dataset.train.images[:size] / np.float32(255), dataset.train.labels[:size]
    init_key, key = jax.random.split(jax.random.key(config.seed, impl="threefry2x32"))
    variables = jax.jit(module.init)(init_key, jnp.zeros((1, *dataset.image_shape)))
    optimizer = optax.sgd(train.learning_rate)
    opt_state = optimizer.init(variables["params"])

    @jax.jit
    def step(variables, opt_state, images, labels, key):
        def loss_of(params):
            logits, updates = module.apply(
                {**variables, "params": params},
                images,
                **read_flags(type(module), train=True),
                mutable=[name for name in variables if name != "params"],
                rngs={"dropout": key},
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updates

        (loss, updates), gradients = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
        changes, opt_state = optimizer.update(gradients, opt_state)
        return {"params": optax.apply_updates(variables["params"], changes), **updates}, opt_state, loss

    losses, count = [], 0
    for epoch in range(train.epochs):
        order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, 0), epoch), size)
        total = 0.0
        for start in range(0, size, train.batch_size):
            rows = order[start : start + train.batch_size]
            dropout = jax.random.fold_in(jax.random.fold_in(key, 1), count)
            variables, opt_state, loss = step(variables, opt_state, images[rows], labels[rows], dropout)
            total, count = total + float(loss) * len(rows), count + 1
        losses.append(total / size)
    return variables, losses


class TestSizes:
    def test_lenet_has_the_parameters_and_flops_of_the_paper(self):
        summary = summarize(read(str(NETWORKS / "lenet.py:LeNet5")), (28, 28, 1), 10)
        assert summary.parameters == 156 + 2_416 + 48_120 + 10_164 + 850
        products = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10
        assert summary.flops == 2 * products
        assert [layer.output_shape for layer in summary.layers] == [(28, 28, 6), (10, 10, 16), (120,), (84,), (10,)]

    def test_resnet_20_has_the_parameters_of_the_paper(self):
        summary = summarize(read(str(NETWORKS / "resnet.py:ResNet")), (32, 32, 3), 10)
        convolutions = [
            (3, 16, 32),
            *[(16, 16, 32)] * 6,
            (16, 32, 16),
            *[(32, 32, 16)] * 5,
            (32, 64, 8),
            *[(64, 64, 8)] * 5,
        ]
        kernels = sum(9 * channels * filters for channels, filters, _ in convolutions)
        norms = sum(2 * filters for _, filters, _ in convolutions)
        assert summary.trainable == kernels + norms + 64 * 10 + 10 == 269_722
        assert summary.non_trainable == norms
        products = sum(9 * channels * filters * size * size for channels, filters, size in convolutions)
        assert summary.flops == 2 * (products + 640)

    @pytest.mark.parametrize("batch_norm", [True, False])
    def test_vgg_has_its_closed_form(self, batch_norm):
        summary = summarize(read(str(NETWORKS / "vgg.py:VGG"), batch_norm=batch_norm), (32, 32, 3), 10)
        pairs = [(3, 32, 32), (32, 32, 32), (32, 64, 16), (64, 64, 16), (64, 128, 8), (128, 128, 8)]
        filters = sum(pair[1] for pair in pairs)
        kernels = sum(9 * channels * filters for channels, filters, _ in pairs)
        dense = (2048 + 1) * 128 + 129 * 10
        assert summary.trainable == kernels + (2 if batch_norm else 1) * filters + dense
        assert summary.non_trainable == (2 * filters if batch_norm else 0)
        products = sum(9 * channels * filters * size * size for channels, filters, size in pairs)
        assert summary.flops == 2 * (products + 2048 * 128 + 1280)

    def test_a_depthwise_convolution_counts_one_channel_for_each_filter(self):
        summary = summarize(read(str(NETWORKS / "separable.py:Separable"), width=8, blocks=1), (32, 32, 3), 10)
        assert summary.trainable == 9 * 3 * 8 + 9 * 8 + 8 * 8 + 3 * 16 + 90
        assert summary.flops == 2 * (32 * 32 * (9 * 3 * 8 + 9 * 8 + 8 * 8) + 80)

    def test_matrix_products_of_an_initializer_are_none_of_the_network(self, write):
        write("""
            import flax.linen as nn

            class Orthogonal(nn.Module):
                classes: int

                @nn.compact
                def __call__(self, images):
                    flat = images.reshape(len(images), -1)
                    return nn.Dense(self.classes, kernel_init=nn.initializers.orthogonal())(flat)
        """)
        (dense,) = read("nets.py:Orthogonal").list_layers((4, 4, 1), 10)
        assert dense.flops == 2 * 16 * 10

    def test_scanned_and_rematerialised_layers_count_as_often_as_they_run(self, write):
        write("""
            import flax.linen as nn
            import jax

            class Layer(nn.Module):
                @nn.compact
                def __call__(self, x, _):
                    return nn.relu(nn.Dense(8)(x)), None

            class Scanned(nn.Module):
                classes: int
                depth: int = 5

                @nn.compact
                def __call__(self, images):
                    x = nn.Dense(8)(images.reshape(len(images), -1))
                    axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "length": self.depth}
                    x, _ = nn.scan(nn.remat(Layer), **axes)()(x, None)
                    return nn.Dense(self.classes)(x)
        """)
        config = read("nets.py:Scanned")
        summary = summarize(config, (4, 4, 1), 3)
        assert summary.parameters == (16 + 1) * 8 + 5 * (8 + 1) * 8 + (8 + 1) * 3
        assert summary.flops == 2 * (16 * 8 + 5 * 64 + 24)
        run = fit(RunConfig(config, TrainConfig(epochs=1), DataConfig(train_size=200)), out=None)
        assert run.record.status == "completed"


class TestKeys:
    def test_a_comment_changes_the_key_and_an_unrelated_file_does_not(self, write):
        path = write(TINY)
        first = RunConfig(read("nets.py:Tiny")).key
        write("x = 1", "unrelated.py")
        assert RunConfig(read("nets.py:Tiny")).key == first
        path.write_text(path.read_text() + "# a comment\n")
        assert RunConfig(read("nets.py:Tiny")).key != first

    def test_a_module_that_is_imported_from_the_folder_changes_the_key(self, write):
        write("from blocks import WIDTH\n" + textwrap.dedent(TINY).replace("= 4", "= WIDTH"))
        write("import deeper\nWIDTH = 4\n", "blocks.py")
        deeper = write("", "deeper.py")
        first = read("nets.py:Tiny")
        assert json.loads(first.fields) == {"width": 4}
        deeper.write_text("# edited\n")
        assert read("nets.py:Tiny").source != first.source
        write("import deeper\nWIDTH = 7\n", "blocks.py")
        assert json.loads(read("nets.py:Tiny").fields) == {"width": 7}

    def test_the_folder_and_the_order_and_spelling_of_values_do_not_change_the_key(self, write, tmp_path, monkeypatch):
        path = write(TINY)
        write(TINY, "other/nets.py")
        first = RunConfig(read("nets.py:Tiny"))
        assert RunConfig(read("other/nets.py:Tiny")).key == first.key
        assert RunConfig(read(f"{path}:Tiny")) == RunConfig(read("./nets.py:Tiny", width=np.int64(4))) == first

    def test_the_source_of_a_package_is_that_of_its_own_modules(self, write, tmp_path, monkeypatch):
        write("", "own_package/__init__.py")
        write("from . import parts\n" + textwrap.dedent(TINY), "own_package/nets.py")
        write("import numpy\n", "own_package/parts.py")
        monkeypatch.syspath_prepend(str(tmp_path))
        files = [name for name, _ in read_source("own_package.nets:Tiny", "model.module").files]
        assert files == ["own_package/__init__.py", "own_package/nets.py", "own_package/parts.py"]
        assert read("own_package.nets:Tiny").module == "own_package.nets:Tiny"


TWO = """
    import flax.linen as nn

    class Wide(nn.Module):
        classes: int
        width: int = 4
        norm: str = "none"

        @nn.compact
        def __call__(self, images):
            return nn.Dense(self.classes)(nn.relu(nn.Dense(self.width)(images.reshape(len(images), -1))))

    class Deep(nn.Module):
        classes: int
        depth: int

        @nn.compact
        def __call__(self, images):
            x = images.reshape(len(images), -1)
            for _ in range(self.depth):
                x = nn.relu(nn.Dense(4)(x))
            return nn.Dense(self.classes)(x)
"""


def make_study(sweep, **base):
    return read_dict({"title": "Does it?", "seeds": 2, "base": base, "sweep": sweep}, "own", "own")


class TestStudies:
    def test_vary_the_fields_of_a_module(self, write):
        write(TWO)
        grid = expand(make_study({"grid": {"model.width": [2, 4]}}, **{"model.module": "nets.py:Wide"}))
        assert [summarize(cell.config).parameters for cell in grid.cells] == [785 * 2 + 3 * 10, 785 * 4 + 5 * 10]
        assert [cell.name for cell in grid.cells] == ["model.width=2", "model.width=4"]

    def test_vary_the_module_with_fields_of_its_own_for_each(self, write):
        write(TWO)
        levels = [
            {"label": "wide", "set": {"model.module": "nets.py:Wide", "model.width": 3}},
            {"label": "deep", "set": {"model": {"module": "nets.py:Deep", "depth": 2}}},
        ]
        grid = expand(make_study({"grid": {"network": levels, "train.epochs": [1, 2]}}))
        assert [summarize(cell.config).parameters for cell in grid.cells] == [
            2355 + 40,
            2355 + 40,
            3140 + 20 + 50,
            3140 + 20 + 50,
        ]
        assert len({cell.config.key for cell in grid.cells}) == 4

    def test_of_a_module_are_written_and_read_as_the_same_study(self, write):
        write(TWO)
        study = make_study({"grid": {"model.width": [2, 4]}}, **{"model.module": "nets.py:Wide"})
        assert read_dict(tomllib.loads(study.to_toml()), "own", "own") == study

    @pytest.mark.parametrize(
        ("sweep", "base", "message"),
        [
            (
                {"grid": {"model.widht": [1]}},
                {"model.module": "nets.py:Wide"},
                "unknown setting 'model.widht'; did you mean 'width'",
            ),
            ({"grid": {"model.width": ["x"]}}, {"model.module": "nets.py:Wide"}, "must be an integer"),
            ({"grid": {"model.norm": ["a"]}}, {"model.module": "nets.py:Deep"}, "unknown setting 'model.norm'"),
            ({"grid": {"train.epochs": [1]}}, {"model.module": "nets.py:Deep"}, "model.depth: must be given"),
            ({"grid": {"model.module": ["nets.py:Non"]}}, {}, "nets.py has no Non"),
            ({"grid": {"model.module": ["Wide"]}}, {}, "must be a name in a file or module"),
        ],
    )
    def test_that_are_mistaken_are_refused(self, write, sweep, base, message):
        write(TWO)
        with pytest.raises(InputError, match=message):
            expand(make_study(sweep, **base))

    def test_that_runs_while_the_code_is_edited_stops_and_stores_nothing_as_failed(self, write, tmp_path):
        path = write(TWO)
        grid = expand(make_study({"grid": {"model.width": [2, 4]}}, **{"model.module": "nets.py:Wide"}))
        store = Store(tmp_path / "runs")

        def fail(config):
            path.write_text(path.read_text() + "# edited\n")
            return "other code", None

        with pytest.raises(InputError, match="its source is not the one of this run"):
            run_grid(grid, store, ScriptedExecutor(fail), Watcher(), Policy(max_retries=0))
        assert store.list_keys() == []

    def test_arms_are_compared_by_their_fields(self, write, tmp_path, capsys):
        from experiments.compare import main as compare

        write(TWO)
        options = ["--set", "model.module=nets.py:Wide", "--set", "train.epochs=1", "--set", "data.train_size=100"]
        arms = [
            "--a",
            "model.width=2",
            "--b",
            "model.width=3",
            "--run",
            "--seeds",
            "2",
            "--out",
            str(tmp_path / "runs"),
        ]
        assert compare([*arms, *options]) == 0
        assert "model.width=2 less model.width=3" in capsys.readouterr().out

    def test_modules_of_the_same_name_in_two_folders_are_not_mixed(self, write):
        for folder, width in (("a", 4), ("b", 16)):
            write("from blocks import WIDTH\n" + textwrap.dedent(TINY).replace("= 4", "= WIDTH"), f"{folder}/nets.py")
            write(f"WIDTH = {width}\n", f"{folder}/blocks.py")
        for _ in range(2):
            assert json.loads(read("a/nets.py:Tiny").fields) == {"width": 4}
            assert json.loads(read("b/nets.py:Tiny").fields) == {"width": 16}
        assert "blocks" not in sys.modules

    def test_an_import_inside_the_module_finds_the_file_beside_it(self, write):
        for folder, width in (("a", 4), ("b", 16)):
            body = textwrap.dedent(TINY).replace("        return", "        from late import WIDTH\n        return")
            write(body.replace("nn.Conv(self.width", "nn.Conv(WIDTH"), f"{folder}/nets.py")
            write(f"WIDTH = {width}\n", f"{folder}/late.py")
        sizes = [summarize(read(f"{folder}/nets.py:Tiny")).layers[0].output_shape[-1] for folder in ("a", "b", "a")]
        assert sizes == [4, 16, 4]

    def test_a_module_that_was_edited_after_its_import_is_refused(self, write, tmp_path, monkeypatch):
        path = write(TINY, "edited_network.py")
        monkeypatch.syspath_prepend(str(tmp_path))
        read("edited_network:Tiny")
        path.write_text(path.read_text().replace("(3, 3)", "(5, 5)"))
        with pytest.raises(InputError, match="edited_network has been edited since it was imported"):
            read("edited_network:Tiny")

    def test_a_function_that_a_field_names_changes_the_key(self, write):
        write(FIELDS)
        path = write("def act(x):\n    return x\n", "acts.py")
        first = read("nets.py:Wide", act="acts.py:act")
        assert first.source != read("nets.py:Wide").source
        path.write_text("def act(x):\n    return 0 * x\n")
        second = read("nets.py:Wide", act="acts.py:act")
        assert second.source != first.source
        with pytest.raises(InputError, match="its source is not the one of this run"):
            first.make(10, jnp.dtype("float32"))
        assert second.make(10, jnp.dtype("float32")).act(3) == 0

    def test_an_imported_module_stays_imported(self, write, tmp_path, monkeypatch):
        write(TINY, "kept_network.py")
        monkeypatch.syspath_prepend(str(tmp_path))
        import kept_network

        read("kept_network.py:Tiny")
        assert sys.modules["kept_network"] is kept_network
        assert RunConfig(model=kept_network.Tiny(10)).model.module == "kept_network:Tiny"


FIELDS = """
    import functools
    from collections.abc import Callable, Sequence
    from dataclasses import dataclass
    from typing import Any, Literal, Optional

    import flax.linen as nn

    @dataclass(frozen=True)
    class Block:
        width: int
        gate: bool = False

    class Wide(nn.Module):
        \"\"\"A network with fields of every kind.

        Attributes:
            rate: a rate,
                described in two lines.
        \"\"\"

        classes: int
        sizes: Sequence[int] = (8, 16)  # a comment behind
        # a comment
        # above
        norm: Literal["batch", "none"] = "none"
        block: Block = Block(4)
        '''A docstring.'''
        rate: float = 0.5
        limit: Optional[int] = None
        act: Callable = nn.relu
        conv: Any = nn.Conv
        init: Callable = nn.initializers.lecun_normal()
        extra: dict[str, int] = None
        blocks: tuple[Block, ...] = ()
        names: list[str] | None = None
        loose: int = None
        gate: callable = nn.relu
        anything: Any = 3

        @nn.compact
        def __call__(self, images):
            assert isinstance(self.block, Block) and callable(self.act)
            return nn.Dense(self.classes)(self.act(images.reshape(len(images), -1)))

    Narrow = functools.partial(Wide, sizes=[4], rate=0.25)
"""


class TestFields:
    def test_are_described_with_their_comments_or_docstrings(self, write):
        write(FIELDS)
        fields = describe_module("nets.py:Wide").fields
        assert [*fields] == [
            "sizes", "norm", "block", "rate", "limit", "act", "conv", "init", "extra", "blocks", "names", "loose",
            "gate", "anything",
        ]  # fmt: skip
        docs = {name: field.doc for name, field in fields.items() if field.doc}
        assert docs == {
            "sizes": "a comment behind",
            "norm": "a comment above",
            "block": "A docstring.",
            "rate": "a rate, described in two lines.",
        }

    def test_have_their_defaults_in_normal_form(self, write):
        write(FIELDS)
        assert read("nets.py:Wide").to_dict() == {
            "module": "nets.py:Wide",
            "source": read("nets.py:Wide").source,
            "sizes": [8, 16],
            "norm": "none",
            "block": {"width": 4, "gate": False},
            "rate": 0.5,
            "limit": None,
            "act": "flax.linen:relu",
            "conv": "flax.linen:Conv",
            "extra": None,
            "blocks": [],
            "names": None,
            "loose": None,
            "gate": "flax.linen:relu",
            "anything": 3,
        }
        narrow = read("nets.py:Narrow").to_dict()
        assert (narrow["sizes"], narrow["rate"]) == ([4], 0.25)

    @pytest.mark.parametrize(
        ("name", "value", "normal"),
        [
            ("sizes", (3,), [3]),
            ("rate", 1, 1.0),
            ("act", "jax.nn:gelu", "flax.linen:gelu"),
            ("act", nn.tanh, "flax.linen:tanh"),
            ("block", {"width": 2}, {"width": 2, "gate": False}),
            (
                "blocks",
                [{"width": 1}, {"width": 2, "gate": True}],
                [{"width": 1, "gate": False}, {"width": 2, "gate": True}],
            ),
            ("extra", {"a": 1}, {"a": 1}),
            ("names", ["x"], ["x"]),
            ("limit", 3, 3),
            ("loose", 2, 2),
            ("gate", "flax.linen:silu", "flax.linen:silu"),
            ("anything", "nets.py:Block", "nets.py:Block"),
            ("anything", "a word", "a word"),
        ],
    )
    def test_of_every_kind_are_read_and_built(self, write, name, value, normal):
        write(FIELDS)
        config = read("nets.py:Wide", **{name: value})
        assert config.to_dict()[name] == normal
        module = config.make(10, jnp.dtype("float32"))
        assert module.init_with_output(jax.random.key(0), jnp.ones((2, 4, 4, 1)))[0].shape == (2, 10)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("sizes", [3, "x"], r"model.sizes\[1\]='x': must be an integer"),
            ("norm", "bach", "must be one of batch, none; did you mean 'batch'"),
            ("rate", True, "model.rate=True: must be a number"),
            ("act", "relu", "must be a name in a file or module, such as nets.py:ResNet"),
            ("act", "flax.linen:rellu", "model.act: flax.linen has no rellu; did you mean 'relu'"),
            ("act", "no_such_package:f", "model.act: there is no module no_such_package"),
            ("act", lambda x: x, "cannot be imported by its name"),
            ("block", {"width": 2, "gates": True}, "unknown key 'gates'; did you mean 'gate'"),
            ("block", {}, "width is missing"),
            ("extra", 3, "must be a table"),
            ("width", 3, "unknown key 'width'"),
            ("classes", 3, "unknown key 'classes'"),
            ("anything", "nets.py:Blok", "nets.py has no Blok; did you mean 'Block'"),
        ],
    )
    def test_with_bad_values_are_refused_in_one_line(self, write, name, value, message):
        write(FIELDS)
        with pytest.raises(InputError, match=message) as refusal:
            read("nets.py:Wide", **{name: value})
        assert "\n" not in str(refusal.value)


class TestErrors:
    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("def Tiny(): pass", "must be a linen module"),
            ("Tiny = [1]", "must be a linen module"),
            ("from flax import nnx\nclass Tiny(nnx.Module): pass", "is an NNX module; must be a linen module"),
            ("class Other: pass", "nets.py has no Tiny"),
            ("import no_such_package_at_all", "ModuleNotFoundError: No module named 'no_such_package_at_all'"),
            ("x = 1 / 0", "ZeroDivisionError: division by zero"),
            ("x = (", "nets.py is not valid Python"),
            ("import sys; sys.exit(0)", "SystemExit: 0"),
        ],
    )
    def test_a_file_without_such_a_module(self, write, source, message):
        write(source)
        with pytest.raises(InputError, match=message):
            read("nets.py:Tiny")

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("def __call__(self): return 1", "takes no images"),
            (
                "def __call__(self, images, mask): return 1",
                "needs mask; beside the images, it can have train, training",
            ),
            ("def __call__(self, images): return images", r"returns \(1, 28, 28, 1\) for 1 images"),
            ("def __call__(self, images): return images.sum((1, 2, 3)), 1", "returns tuple; must return logits"),
            ("def __call__(self, images): return images.sum((1, 2))", "returns 1 logits for 10 classes"),
            ("def __call__(self, images): raise ValueError('too\\nsmall')", "ValueError: too"),
        ],
    )
    def test_a_module_that_cannot_be_a_network_is_refused_before_training(self, write, tmp_path, body, message):
        write(f"import flax.linen as nn\nclass Bad(nn.Module):\n    {body}\n")
        with pytest.raises(InputError, match=message):
            fit(RunConfig(read("nets.py:Bad")), tmp_path / "runs")
        assert not (tmp_path / "runs").exists()

    def test_shows_the_lines_of_the_user_alone(self, write):
        write("""
            import flax.linen as nn

            class Bad(nn.Module):
                @nn.compact
                def __call__(self, images):
                    return nn.Conv(3, (3, 3), padding="vallid")(images)
        """)
        with pytest.raises(CodeError) as refusal:
            summarize(read("nets.py:Bad"))
        (line,) = refusal.value.lines
        assert line.endswith('nets.py:7, in __call__: return nn.Conv(3, (3, 3), padding="vallid")(images)')

    def test_bfloat16_needs_a_field_for_it(self, write):
        write(TINY)
        with pytest.raises(InputError, match="has no field dtype; must be float32"):
            fit(RunConfig(read("nets.py:Tiny"), TrainConfig(precision="bfloat16")), out=None)
        resnet = read(str(NETWORKS / "resnet.py:ResNet"), depth=8, width=4)
        run = fit(RunConfig(resnet, TrainConfig(epochs=1, precision="bfloat16"), DataConfig(train_size=100)), out=None)
        assert run.record.status == "completed"


class TestConvolutions:
    @pytest.mark.parametrize("groups", [1, 2, 4])
    @pytest.mark.parametrize("dilation", [(1, 1), (2, 3)])
    @pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
    @pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2), (0, 3))])
    def test_equal_those_of_xla_with_their_gradients(self, groups, dilation, strides, padding):
        keys = jax.random.split(jax.random.key(0), 3)
        images = jax.random.normal(keys[0], (2, 9, 10, 4))
        kernel = jax.random.normal(keys[1], (3, 2, 4 // groups, 8 if groups < 4 else 4))
        settings = {
            "rhs_dilation": dilation,
            "feature_group_count": groups,
            "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
        }

        def run(convolve, images, kernel):
            return convolve(images, kernel, strides, padding, **settings)

        outputs, pull = jax.vjp(functools.partial(run, conv_general_dilated), images, kernel)
        expected, pull_expected = jax.vjp(functools.partial(run, lax.conv_general_dilated), images, kernel)
        cotangent = jax.random.normal(keys[2], expected.shape)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
        close(outputs, expected)
        jax.tree.map(close, pull(cotangent), pull_expected(cotangent))

    def test_none_of_xla_is_left_in_a_training_step(self):
        config = RunConfig(read(str(NETWORKS / "separable.py:Separable")))
        module = config.model.build(10, jnp.dtype("float32"))
        variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))

        def loss_of(params):
            rest = {name: tree for name, tree in variables.items() if name != "params"}
            logits, _ = module.apply({"params": params, **rest}, jnp.zeros((4, 28, 28, 1)), train=True, mutable=[*rest])
            return logits.sum()

        text = str(jax.jit(jax.grad(loss_of)).lower(variables["params"]).as_text())
        assert "dot_general" in text
        assert "stablehlo.convolution" not in text


def test_a_module_as_a_field_of_an_instance_must_be_left_at_its_default(write, tmp_path, monkeypatch):
    write(
        TINY.replace("width: int = 4", "width: int = 4\n        stem: nn.Module = None\n        ints: dict = None"),
        "stem_network.py",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import stem_network

    assert RunConfig(model=stem_network.Tiny(10, 5)).model.to_dict()["width"] == 5
    with pytest.raises(InputError, match=r"model\.stem: a module as a field cannot be a setting"):
        RunConfig(model=stem_network.Tiny(10, stem=nn.Dense(3)))


def test_a_stored_table_with_an_unknown_field_is_refused_in_one_line(write):
    write(TINY)
    table = {**read("nets.py:Tiny").to_dict(), "widht": 3}
    with pytest.raises(InputError, match="unknown key 'widht'; did you mean 'width'"):
        ModuleConfig.from_dict(table).make(10, jnp.dtype("float32"))


def test_a_module_in_a_notebook_has_the_source_of_its_definitions(monkeypatch, tmp_path):
    path = tmp_path / "cell.py"
    text = textwrap.dedent(TINY).replace("nn.relu", "activate").replace("= 4", "= WIDTH")
    path.write_text(f"WIDTH = 4\n{text}\n\ndef activate(x):\n    return x\n")
    main = sys.modules["__main__"]
    namespace = {"__name__": "__main__"}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    for name in ("Tiny", "activate", "WIDTH"):
        monkeypatch.setattr(main, name, namespace[name], raising=False)
    monkeypatch.delattr(main, "__file__", raising=False)
    config = RunConfig(model=namespace["Tiny"](num_classes=10))
    assert config.model.module == "__main__:Tiny"
    (file,) = read_source("__main__:Tiny", "model.module").files
    assert "def activate" in file[1]
    assert "class Tiny" in file[1]
    monkeypatch.setattr(main, "WIDTH", 32)
    assert RunConfig(model=namespace["Tiny"](num_classes=10)).model.source != config.model.source
    monkeypatch.setattr(main, "WIDTH", 4)
    assert fit(RunConfig(config.model, TrainConfig(epochs=1), DataConfig(train_size=100)), out=None).record.test_loss


def test_the_examples_of_the_page_are_networks_and_studies(write, monkeypatch):
    page = (ROOT / "docs/your_network.md").read_text()
    module, *_ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    write(module)
    assert summarize(read("nets.py:Net")).parameters == (9 + 1) * 16 + 2 * 16 + (16 + 1) * 10
    study, _ = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(ROOT)
    assert len(expand(read_dict(tomllib.loads(study), "page", "page")).cells) == 4
