"""Keras, on the backend that ``KERAS_BACKEND`` names: ``Sequential``, ``compile`` and ``fit``."""

import os

from experiments.contestants.serving import BATCH, RATE, Trainer, load_training_images, read_options, serve


def make_trainer(single_thread: bool) -> Trainer:
    """Returns a trainer of the textbook network."""
    from cnnjax.caches import keep_programs

    keep_programs()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if single_thread:
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        device = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    else:
        import jax

        device = str(jax.devices()[0].device_kind)

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, 5, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 5, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy")
    images, labels = load_training_images()
    random = np.random.default_rng(0)

    def train(steps: int) -> float:
        if steps * BATCH < len(images):
            rows = random.permutation(len(images))[: steps * BATCH]
            history = model.fit(images[rows], labels[rows], batch_size=BATCH, verbose=0)
        else:
            history = model.fit(images, labels, batch_size=BATCH, verbose=0)
        return float(history.history["loss"][-1])

    return Trainer(device, train)


if __name__ == "__main__":
    core, _ = read_options()
    serve(make_trainer(core is not None))
