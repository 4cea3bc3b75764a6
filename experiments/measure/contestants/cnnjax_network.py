"""cnnjax: the library's own programs, which take `PIECE` steps at a time, also where one is asked for."""

from cnnjax.machine.processes import offer_cpu_devices
from experiments.measure.contestants import Architecture
from experiments.measure.contestants.serving import BATCH, Options, Trainer, main


def make_trainer(options: Options, network: Architecture, seed: int) -> Trainer:
    """Returns a trainer of a run; JAX finds its one core by itself."""
    from cnnjax.machine.files import keep_programs

    keep_programs()
    offer_cpu_devices()  # as experiments.train does
    import jax

    from cnnjax import ModelConfig, RunConfig
    from cnnjax.data.loading import load
    from cnnjax.machine.devices import choose_devices, make_mesh
    from cnnjax.training.loop import prepare
    from cnnjax.training.programs import PIECE

    mesh = make_mesh(choose_devices(BATCH), BATCH)
    model = ModelConfig(network.filters, network.window, padding=network.padding)
    prepared = prepare(RunConfig(model, seed=seed), load("mnist"), mesh)
    programs, splits, state = prepared.programs, prepared.splits, prepared.state
    examples = len(splits["train"].labels)
    order, steps_an_epoch = programs.shuffle(state), examples // BATCH
    program, data = next(programs.remaining(splits["train"], order, 0))

    def train(steps: int) -> float:
        nonlocal state, order
        for _ in range(0, steps, PIECE):
            if int(state.step) % steps_an_epoch == 0:
                order = programs.shuffle(state)
            state, _, losses = program(state, programs.zero(), data, order)
        return float(losses[-1]) / BATCH  # which are sums over a batch

    return Trainer(
        str(jax.devices()[0].device_kind), train, lambda: programs.evaluate(state, splits["test"])[0].accuracy
    )


if __name__ == "__main__":
    main(make_trainer)
