"""Calling the command line inside the tests' own process."""

import contextlib
from collections.abc import Iterator

import jax

CONFIGURED = (
    "jax_enable_x64",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@contextlib.contextmanager
def configuration_restored() -> Iterator[None]:
    """`main` configures JAX for its process; after this the next test finds it as it was."""
    before = {name: getattr(jax.config, name) for name in CONFIGURED}
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
