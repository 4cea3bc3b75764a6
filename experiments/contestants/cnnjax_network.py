"""cnnjax: the library's own programs, which take `PIECE` steps at a time, also where one is asked for."""

from cnnjax.processors import offer_cpu_devices
from experiments.contestants.serving import BATCH, Trainer, read_options, serve


def make_trainer() -> Trainer:
    """Returns a trainer of the default run."""
    from cnnjax.caches import keep_programs

    keep_programs()
    offer_cpu_devices()  # as experiments.train does
    import jax

    from cnnjax import RunConfig
    from cnnjax.datasets import load
    from cnnjax.fitting import prepare
    from cnnjax.programs import PIECE
    from cnnjax.sharding import choose_devices, make_mesh, replicate
    from cnnjax.training import Metrics

    mesh = make_mesh(choose_devices(BATCH), BATCH)
    prepared = prepare(RunConfig(), load("mnist"), mesh)
    programs, data, state = prepared.programs, prepared.splits["train"], prepared.position.state
    program, steps_an_epoch = programs.remaining(0, len(data.labels))[0], len(data.labels) // BATCH
    order = programs.shuffle(state)

    def train(steps: int) -> float:
        nonlocal state, order
        for _ in range(0, steps, PIECE):
            if int(state.step) % steps_an_epoch == 0:
                order = programs.shuffle(state)
            state, _, losses = program(state, replicate(Metrics.zero(), mesh), data, order)
        return float(losses[-1]) / BATCH  # which are sums over a batch

    return Trainer(str(jax.devices()[0].device_kind), train)


if __name__ == "__main__":
    read_options()
    serve(make_trainer())
