"""A model that `jaxem fit --out` wrote, and the rows of a table as it takes them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxem import families, io
from jaxem.cli import models
from jaxem.cli.table import Table
from jaxem.data import Samples
from jaxem.hmm import HMM
from jaxem.mixture import Mixture


def load(path: str) -> Mixture | HMM:
    """The model in a file.

    Raises:
        ValueError: no model file, or a part of a model.
        OSError: it cannot be read.
    """
    model = io.load(path)
    if not isinstance(model, Mixture | HMM):
        raise ValueError(f"{path}: holds a {type(model).__name__}; expected a Mixture or an HMM")
    return jax.tree.map(jnp.asarray, model)


def rows_for(model: Mixture | HMM, path: str, table: Table, dtype: str) -> Samples:
    """The rows of a table as the model in the file at `path` takes them.

    Raises:
        ValueError: another number of columns than the model has, or an entry that it cannot have
            produced.
    """
    family = models.innermost(models.emission(model))
    expected = int(np.prod(family.event_shape))
    if len(table.columns) != expected:
        raise ValueError(
            f"{table.source}: {len(table.columns)} columns ({', '.join(table.columns)}), but the "
            f"model in {path} takes {expected}; choose with --columns"
        )
    symbolic = isinstance(family, families.Categorical)
    models.check_values(table, type(family), family.logits.shape[-1] if symbolic else None)
    return models.rows_of(table, type(family), family.event_shape, dtype)
