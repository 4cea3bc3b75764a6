"""Keras, on the backend that ``KERAS_BACKEND`` names: ``Sequential``, ``compile`` and ``fit``."""

import os

from experiments.measure.contestants import Architecture
from experiments.measure.contestants.serving import BATCH, RATE, Options, Trainer, load_images, main


def make_trainer(options: Options, network: Architecture, seed: int) -> Trainer:
    """Returns a trainer."""
    from cnnjax.machine.files import keep_programs

    keep_programs()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np

    device = _find_device(keras.backend.backend(), options)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    first, second = network.filters
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(first, network.window, padding=network.padding, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(second, network.window, padding=network.padding, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    images, labels = load_images("train")
    random = np.random.default_rng(seed)

    def train(steps: int) -> float:
        if steps * BATCH < len(images):
            rows = random.permutation(len(images))[: steps * BATCH]
            history = model.fit(images[rows], labels[rows], batch_size=BATCH, verbose=0)
        else:
            history = model.fit(images, labels, batch_size=BATCH, verbose=0)
        return float(history.history["loss"][-1])

    def evaluate() -> float:
        return float(model.evaluate(*load_images("test"), batch_size=BATCH, verbose=0)[1])

    return Trainer(device, train, evaluate)


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
