"""The speed of one large ``lax.dot`` in float32, as a line of JSON: what this machine can do at most."""

import json
import time

SIZE, REPEATS = 2048, 9


def measure_peak() -> float:
    """Returns the floating-point operations a second of the fastest of a few products."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    matrix = jnp.ones((SIZE, SIZE))
    product = jax.jit(lax.dot)
    product(matrix, matrix).block_until_ready()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(seconds)


if __name__ == "__main__":
    print(json.dumps(measure_peak()))
