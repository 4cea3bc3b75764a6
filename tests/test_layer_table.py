"""The layer table: the chapter's numbers, exactly."""

import pytest

from cnnjax import ModelConfig, RunConfig, summarize

BASIC = summarize(ModelConfig(filters=(32,)), (28, 28, 1), classes=None)
WITHOUT_CLASSIFIER = summarize(ModelConfig(), (28, 28, 1), classes=None)
SIMPLE = summarize(ModelConfig(), (28, 28, 1))

SIMPLE_TABLE = """\
Layer (type)         Output Shape        Param #      FLOPs   Bytes
===================================================================
Conv_0 (Conv)        (None, 24, 24, 32)      832    921,600  73,728
MaxPool_0 (MaxPool)  (None, 12, 12, 32)        0          0  18,432
Conv_1 (Conv)        (None, 8, 8, 64)     51,264  6,553,600  16,384
MaxPool_1 (MaxPool)  (None, 4, 4, 64)          0          0   4,096
Flatten (Flatten)    (None, 1024)              0          0   4,096
Dense_0 (Dense)      (None, 10)           10,250     20,480      40
===================================================================
Total params: 62,346 (249,384 bytes)
Trainable params: 62,346
Non-trainable params: 0
Forward FLOPs per image: 7,495,680
Activation bytes per image: 116,776"""


@pytest.mark.parametrize(
    ("table", "rows", "total"),
    [
        (BASIC, [((24, 24, 32), 832), ((12, 12, 32), 0)], 832),
        (
            WITHOUT_CLASSIFIER,
            [((24, 24, 32), 832), ((12, 12, 32), 0), ((8, 8, 64), 51_264), ((4, 4, 64), 0)],
            52_096,
        ),
        (
            SIMPLE,
            [
                ((24, 24, 32), 832),
                ((12, 12, 32), 0),
                ((8, 8, 64), 51_264),
                ((4, 4, 64), 0),
                ((1024,), 0),
                ((10,), 10_250),
            ],
            62_346,
        ),
    ],
    ids=["basic", "simple without classifier", "simple"],
)
def test_the_chapters_tables_have_its_shapes_and_parameters(table, rows, total):
    assert [(layer.output_shape, layer.parameters) for layer in table.layers] == rows
    assert (table.parameters, table.trainable, table.non_trainable) == (total, total, 0)


def test_the_chapters_formulas_are_the_closed_forms():
    assert BASIC.parameters == 32 * (25 + 1)
    assert SIMPLE.layers[2].parameters == ((5 * 5 * 32) + 1) * 64
    assert SIMPLE.layers[-1].parameters == 10 * 1024 + 10


def test_the_table_prints_in_the_shape_of_keras():
    assert str(SIMPLE) == SIMPLE_TABLE
    assert repr(SIMPLE) == SIMPLE_TABLE


def test_one_filter_shares_its_weights_among_576_positions():
    layer = summarize(ModelConfig(filters=(1,), use_bias=False, pool="none"), classes=None).layers[0]
    height, width, filters = layer.output_shape
    assert (height * width, filters, layer.parameters) == (576, 1, 25)
    assert height * width * layer.parameters == 14_400
    assert layer.flops == 2 * 14_400


def test_convolutions_hold_the_computation_and_the_dense_layer_most_weights_per_output():
    convolutions = [layer for layer in SIMPLE.layers if layer.kind == "Conv"]
    dense = SIMPLE.layers[-1]
    assert sum(layer.flops for layer in convolutions) > 0.99 * SIMPLE.flops
    assert sum(layer.activation_bytes for layer in convolutions) > 0.7 * SIMPLE.activation_bytes
    assert all(dense.parameters / 10 > layer.parameters / layer.output_shape[-1] for layer in convolutions)


def test_batch_normalisation_has_as_many_statistics_as_trainable_parameters():
    table = summarize(ModelConfig(batch_norm=True, dense=(16,)))
    assert table.non_trainable == 2 * (32 + 64 + 16)
    assert table.trainable == 832 + 51_264 + 16 * 1025 + 10 * 17 + table.non_trainable
    assert table.parameters == table.trainable + table.non_trainable
    assert f"Non-trainable params: {table.non_trainable:,}" in str(table)


def test_a_run_has_the_table_of_its_network():
    assert summarize(RunConfig()) == SIMPLE


def test_the_bytes_of_the_parameters_are_those_of_float32():
    assert f"Total params: 62,346 ({4 * 62_346:,} bytes)" in str(SIMPLE)


def test_no_line_of_the_table_ends_in_spaces():
    tables = [summarize(ModelConfig(filters=(), dense=(8,), dropout=0.5)), BASIC, SIMPLE]
    assert not [line for table in tables for line in str(table).splitlines() if line != line.rstrip()]
