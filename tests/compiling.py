"""Compiles functions quickly, for tests of what they compute; the programs of runs have options of their own."""

import functools

import jax

compile_quickly = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}
)
"""`jax.jit` without the optimisations of LLVM, which take half of the time."""
