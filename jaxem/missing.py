"""Rows of which some entries are missing: what a chunk of them is, and groups that lack the same.

Missing at random is assumed throughout: what is missing may depend on what is observed, not on the
missing values themselves.  Little & Rubin (2019) §6.2.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxem.platform import is_cpu
from jaxem.pytree import pytree

MAX_PATTERNS = 64  # up to which rows are grouped on any platform
ROWS_A_PATTERN = (
    8  # from which a CPU, for which a chunk costs little, groups any number of them ...
)
TABLE_ELEMENTS = 2**24  # ... whose factors fit into this: [P, K, D, D], several of them
GROUP_MULTIPLE = 16  # rows: chunks of a group are a whole number of times as long
GROUP_SIZES = 64  # so many lengths are considered, of equal ratios where there could be more
CHUNK_COST = 64  # rows whose work takes as long as what a chunk costs beyond its rows


@pytree
class Partial:
    """Rows of a chunk with missing entries, as the form of a family takes them.

    Either every row says what is observed, or all of them share one of the patterns of the data.
    """

    values: Any  # [n, ...]; where an entry is missing 0 if rows are centred, a legal value if not
    observed: Any = None  # bool [n, ...]; None where there is a pattern
    pattern: Any = None  # [] which pattern all rows have; None where every row has its own
    inferred: Any = None  # what a form made of the missing entries, from density to statistics


@pytree
class PerPattern:
    """Statistics of a chunk that are summed for each pattern apart: leaves [P, ...] in the end."""

    sums: Any


@pytree
class Missing:
    """That entries are missing, and in which patterns."""

    patterns: Any = None  # bool [P, D]; None: every row has its own


@pytree
class Groups:
    """An order of rows in which each chunk of n slots has one pattern."""

    patterns: Any  # bool [P, D], what is observed
    pattern: Any  # [C], of every chunk
    row: Any  # [C, n], in every slot; the number of rows where a slot is empty
    slot: Any  # [N], of every row


def fill(values: Any, observed: Any) -> Any:
    """Values with an observed entry of the same column for each missing one, 0 in an unseen column.

    So whatever checks or transforms them sees nothing that the family cannot have produced.
    """
    xp: Any = np if isinstance(values, np.ndarray) and isinstance(observed, np.ndarray) else jnp
    if len(values) == 0:
        return values
    values = xp.asarray(values)  # in a dtype that JAX has
    legal = xp.take_along_axis(values, xp.argmax(observed, 0)[None], 0)
    legal = xp.where(xp.any(observed, 0), legal, 0)
    legal = legal if xp is np else jax.lax.stop_gradient(legal)
    return xp.where(observed, values, legal).astype(values.dtype)


def without_nan(values: Any) -> tuple[Any, Any]:
    """The values, on the host unless they are on a device, and where there is no NaN.

    None, and what a NumPy mask hides, are missing as well.
    """
    if isinstance(values, jax.Array):
        return values, values == values  # noqa: PLR0124 - NaN equals nothing
    hidden = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else False
    values = np.asarray(values)
    if values.dtype == object:
        nothing = np.array([value is None for value in values.flat], bool).reshape(values.shape)
        values = np.where(nothing, np.nan, values).astype(float)
    return values, (values == values) & ~np.asarray(hidden)  # noqa: PLR0124


def agree(groups: Groups, observed: Bool[Array, "N D"]) -> Bool[Array, ""]:
    """Whether the groups are those of this mask."""
    pattern = groups.pattern[groups.slot // groups.row.shape[1]]  # of every row
    return jnp.all(jnp.asarray(groups.patterns)[pattern] == observed)


def check_unmasked(values: Any) -> None:
    """Raise a ValueError if these hide entries behind a NumPy mask, which would be lost."""
    if np.ma.is_masked(values):
        raise ValueError(
            "the array has a NumPy mask: Samples.from_nan and Sequences.from_nan take what it "
            "hides as missing."
        )


def group(observed: Bool[np.ndarray, "N D"], *, num_factors: int, largest: int) -> Groups | None:
    """Rows grouped by what is observed, in chunks of at most `largest`; None if patterns are many.

    A chunk is as long as makes the padding of the groups and the number of chunks cheapest.
    """
    number, size = observed.shape
    most = max(MAX_PATTERNS, number // ROWS_A_PATTERN) if is_cpu() else MAX_PATTERNS
    most = min(most, TABLE_ELEMENTS // (num_factors * size**2))
    packed = np.ascontiguousarray(np.packbits(observed, axis=1))
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, member, count = np.unique(
        keys, return_index=True, return_inverse=True, return_counts=True
    )
    if len(first) > most:
        return None
    multiples = np.geomspace(1, max(largest // GROUP_MULTIPLE, 1), GROUP_SIZES)
    sizes = GROUP_MULTIPLE * np.unique(multiples.round().astype(int))
    chunks = -(-count // sizes[:, None])  # of each group, for each size
    best = np.argmin(chunks.sum(1) * (sizes + CHUNK_COST))
    length, chunks = int(sizes[best]), chunks[best]
    order = np.argsort(member, kind="stable")
    begins = np.cumsum(count) - count  # in that order
    within = np.arange(number) - np.repeat(begins, count)
    slot = np.empty(number, np.int32)
    slot[order] = np.repeat((np.cumsum(chunks) - chunks) * length, count) + within
    row = np.full(int(chunks.sum()) * length, number, np.int32)
    row[slot] = np.arange(number)
    pattern = np.repeat(np.arange(len(first), dtype=np.int32), chunks)
    return Groups(observed[first], pattern, row.reshape(-1, length), slot)
