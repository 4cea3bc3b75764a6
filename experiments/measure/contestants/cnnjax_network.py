"""cnnjax: the library's own programs, which take `PIECE` steps at a time, also where one is asked for."""

from typing import Any

from cnnjax.machine.processes import offer_cpu_devices
from experiments.measure.contestants.networks import Network
from experiments.measure.contestants.serving import BATCH, Options, Trainer, load_dataset, main


def make_trainer(options: Options, network: Network, seed: int) -> Trainer:
    """Returns a trainer of a run; JAX finds its one core by itself."""
    from cnnjax.machine.files import keep_programs

    keep_programs()
    offer_cpu_devices()  # as experiments.train does
    import jax

    from cnnjax import RunConfig, TrainConfig
    from cnnjax.machine.devices import make_mesh
    from cnnjax.models.table import Summary
    from cnnjax.training.fit import choose_run_devices
    from cnnjax.training.loop import Prepared, prepare
    from cnnjax.training.programs import PIECE

    config = RunConfig(network.make_config(), TrainConfig(precision=options.precision), seed=seed)
    dataset = load_dataset(network.image_shape)
    mesh = make_mesh(choose_run_devices(config, dataset.info), BATCH)
    layers = config.model.list_layers(network.image_shape, dataset.classes)
    steps_an_epoch = len(dataset.train) // BATCH
    prepared: Prepared | None = None
    state: Any = None
    order: Any = None

    def train(steps: int) -> float:
        nonlocal prepared, state, order
        if prepared is None:  # this compiles, also the evaluation, and counts as part of the first step
            prepared = prepare(config, dataset, mesh)
            state = prepared.state
        programs, examples = prepared.programs, prepared.splits["train"]
        for _ in range(0, steps, PIECE):
            if int(state.step) % steps_an_epoch == 0:
                order = programs.shuffle(state)
            program, data = next(programs.remaining(state, examples, order, 0))
            state, _, losses = program(state, programs.zero(), data, order)
        return float(losses[-1]) / BATCH  # which are sums over a batch

    def evaluate() -> float:
        assert prepared
        return prepared.programs.evaluate(state, prepared.splits["test"])[0].accuracy

    return Trainer(str(jax.devices()[0].device_kind), Summary(layers).parameters, train, evaluate, PIECE)


if __name__ == "__main__":
    main(make_trainer)
