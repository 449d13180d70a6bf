"""`jaxem sample`: rows drawn from a model."""

from argparse import Namespace

import jax
import numpy as np

from jaxem.cli import model_file, output
from jaxem.mixture import Mixture


def run(arguments: Namespace) -> int:
    """Write N rows, and the component or state that each came from; the exit status."""
    output.check(arguments.out, "--out", [arguments.model])
    model = model_file.load(arguments.model)
    draw = jax.jit(type(model).sample, static_argnums=2)  # one program instead of some forty
    rows, member = draw(model, jax.random.key(arguments.seed), arguments.n)
    columns = [
        *np.asarray(rows).reshape(arguments.n, -1).T.astype(str),
        np.asarray(member).astype(str),
    ]
    header = [f"x{i + 1}" for i in range(len(columns) - 1)]
    label = "component" if isinstance(model, Mixture) else "state"
    output.write_csv(arguments.out, [*header, label], columns)
    return 0
