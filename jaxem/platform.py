"""What JAX computes on: some algorithms are chosen by it."""

import jax


def is_cpu() -> bool:
    """Whether JAX's default backend is a CPU; looked up while tracing."""
    return jax.default_backend() == "cpu"
