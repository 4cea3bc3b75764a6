"""Keras, on the backend that ``KERAS_BACKEND`` names: a functional model, ``compile`` and ``fit``."""

import os
from typing import Any

from experiments.measure.contestants.networks import CLASSES, Network
from experiments.measure.contestants.serving import BATCH, RATE, Options, Trainer, load_images, main


def make_model(network: Network) -> Any:
    """Returns the model, not yet compiled."""
    import keras
    from keras import layers

    pools = {"max": layers.MaxPooling2D, "avg": layers.AveragePooling2D}
    images = x = keras.Input(network.image_shape)
    inputs = []
    for block in network.blocks:
        inputs.append(x)
        settings: dict[str, Any] = {"strides": block.strides, "padding": block.padding, "use_bias": block.bias}
        if block.is_depthwise:
            x = layers.DepthwiseConv2D(block.window, **settings)(x)
        else:
            x = layers.Conv2D(block.filters, block.window, **settings)(x)
        if block.norm:
            x = layers.BatchNormalization()(x)
        if block.shortcut:
            start = inputs[-block.shortcut]
            stride = start.shape[1] // x.shape[1]
            channels = x.shape[3] - start.shape[3]
            x += keras.ops.pad(start[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, channels)))
        x = layers.ReLU()(x)
        if block.pool != "none":
            x = pools[block.pool](2)(x)
    x = layers.GlobalAveragePooling2D()(x) if network.averages else layers.Flatten()(x)
    for width in network.dense:
        x = layers.Dense(width, activation="relu")(x)
    return keras.Model(images, layers.Dense(CLASSES, activation="softmax", dtype="float32")(x))


def make_trainer(options: Options, network: Network, seed: int) -> Trainer:
    """Returns a trainer."""
    from cnnjax.machine.files import keep_programs

    keep_programs()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np

    device = _find_device(keras.backend.backend(), options)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if options.precision == "bfloat16" else "float32")
    model = make_model(network)
    model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    images, labels = load_images(network.image_shape, "train")
    random = np.random.default_rng(seed)

    def train(steps: int) -> float:
        if steps * BATCH < len(images):
            rows = random.permutation(len(images))[: steps * BATCH]
            history = model.fit(images[rows], labels[rows], batch_size=BATCH, verbose=0)
        else:
            history = model.fit(images, labels, batch_size=BATCH, verbose=0)
        return float(history.history["loss"][-1])

    def evaluate() -> float:
        return float(model.evaluate(*load_images(network.image_shape, "test"), batch_size=BATCH, verbose=0)[1])

    return Trainer(device, model.count_params(), train, evaluate)


def _find_device(backend: str, options: Options) -> str:
    if backend != "tensorflow":
        import jax

        return str(jax.devices()[0].device_kind)
    import tensorflow as tf

    if options.single_thread:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


if __name__ == "__main__":
    main(make_trainer)
