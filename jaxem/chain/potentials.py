"""A chain of log-potentials, and the layout in which the recursions run."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxem.data import mask_from_lengths
from jaxem.pytree import pytree


@pytree
class Chain:
    """Log-potentials of z_1 … z_T: any real numbers and -inf, normalised or not.

    A batch of B chains has emission [B, T, K]; `initial` and `transition` may then be shared or
    have a leading axis B.  Expected counts come back in a `Chain` of the same shapes, summed over
    whatever was shared.
    """

    initial: Any  # [K], or [B, K]
    transition: Any  # [K, K], or [T-1, K, K] per step (t moves t to t+1), or [B, T-1, K, K]
    emission: Any  # [T, K], or [B, T, K]


@pytree
class Potentials:
    """A chain with time first and the batch last, which is how vector units like it.

    `*B` is one axis, or none for a single chain.  Emissions outside a sequence are 0.
    """

    initial: Float[Array, "K *B"]
    transition: Float[Array, "..."]  # [K, K], [T-1, K, K] or [T-1, K, K, B]
    emission: Float[Array, "T K *B"]
    inside: Bool[Array, "T *B"] | None  # whether a step lies inside its sequence; None: all do

    @property
    def num_steps(self) -> int:
        """T, padding included."""
        return self.emission.shape[0]

    @property
    def num_states(self) -> int:
        """K."""
        return self.emission.shape[1]

    @property
    def is_shared(self) -> bool:
        """Whether one transition matrix serves all steps."""
        return self.transition.ndim == 2

    @property
    def is_first(self) -> Bool[Array, " T"]:
        """Whether a step is the first."""
        return jnp.arange(self.num_steps) == 0

    @property
    def goes_on(self) -> Bool[Array, "T *B"]:
        """Whether the step after lies inside the sequence too."""
        if self.inside is None:
            return jnp.arange(self.num_steps) < self.num_steps - 1
        return jnp.concatenate([self.inside[1:], jnp.zeros_like(self.inside[:1])])

    @property
    def per_step(self) -> Array | None:
        """The transitions as input of a scan; None where they are shared."""
        return None if self.is_shared else self.transition

    @property
    def inside_rest(self) -> Array | None:
        """`inside` of the steps after the first."""
        return None if self.inside is None else self.inside[1:]


def lay_out(chain: Chain, lengths: Int[Array, "..."] | None) -> Potentials:
    """The chain as the recursions want it; a batch of one loses its batch axis.

    Raises:
        ValueError: shapes that are none of those of `Chain`.
    """
    initial, transition, emission = (
        jnp.asarray(part) for part in (chain.initial, chain.transition, chain.emission)
    )
    dtype = jnp.result_type(initial, transition, emission)
    initial, transition, emission = (part.astype(dtype) for part in (initial, transition, emission))
    check_shapes(initial, transition, emission, lengths)
    inside = None
    if emission.ndim == 2:
        if lengths is not None:
            inside = mask_from_lengths(jnp.asarray(lengths)[None], emission.shape[0])[0]
    else:
        batch = emission.shape[0]
        if lengths is not None:
            inside = mask_from_lengths(jnp.asarray(lengths), emission.shape[1]).T
        initial = jnp.broadcast_to(initial, (batch, emission.shape[2])).T
        emission = emission.transpose(1, 2, 0)
        if transition.ndim == 4:
            transition = transition.transpose(1, 2, 3, 0)
        if batch == 1:
            initial, emission = initial[:, 0], emission[:, :, 0]
            transition = transition[..., 0] if transition.ndim == 4 else transition
            inside = None if inside is None else inside[:, 0]
    if inside is not None:
        emission = jnp.where(jnp.expand_dims(inside, 1), emission, 0)
        if transition.ndim > 2:  # moves into steps that no sequence has, or not this one
            entered = inside[1:]
            if transition.ndim == 3 and entered.ndim == 2:
                entered = jnp.any(entered, 1)
            transition = jnp.where(entered[:, None, None], transition, 0)
    return Potentials(initial, transition, emission, inside)


def moves_in(moves: Array) -> Array | None:
    """The move into each of T steps as input of a scan; None where one matrix is shared."""
    return _padded(moves, 1, 0)


def moves_out(moves: Array) -> Array | None:
    """The move out of each of T steps as input of a scan; None where one matrix is shared."""
    return _padded(moves, 0, 1)


def _padded(moves: Array, before: int, after: int) -> Array | None:
    if moves.ndim == 2:
        return None
    return jnp.pad(moves, [(before, after)] + [(0, 0)] * (moves.ndim - 1))


def as_chain(p: Potentials, chain: Chain) -> Chain:
    """Expected counts in the layout of the chain that was laid out, summed where it shares.

    A part keeps its dtype, as the gradient with respect to it would.
    """
    initial, transition, emission = p.initial, p.transition, p.emission
    if emission.ndim == 3:
        emission, initial = emission.transpose(2, 0, 1), initial.T
        if transition.ndim == 4:
            transition = transition.transpose(3, 0, 1, 2)
    elif jnp.ndim(chain.emission) == 3:
        emission, initial = emission[None], initial[None]
        transition = transition[None] if jnp.ndim(chain.transition) == 4 else transition
    initial = jnp.sum(initial, 0) if jnp.ndim(chain.initial) < initial.ndim else initial
    counts = Chain(initial, transition, emission)
    return jax.tree.map(lambda count, part: count.astype(jnp.result_type(part)), counts, chain)


def check_shapes(initial: Array, transition: Array, emission: Array, lengths: Any) -> None:
    """Raise a ValueError unless the parts of a chain fit each other."""
    if emission.ndim not in (2, 3):
        raise ValueError(f"emission must be [T, K] or [B, T, K], got {list(emission.shape)}.")
    *batch, steps, states = emission.shape
    moves = max(steps - 1, 0)
    initials = [(states,), (*batch, states)]
    transitions = [(states, states), (moves, states, states), (*batch, moves, states, states)]
    fits = {"initial": (initial, initials), "transition": (transition, transitions)}
    for name, (part, legal) in fits.items():
        if part.shape not in legal:
            wanted = " or ".join(str(list(shape)) for shape in dict.fromkeys(legal))
            raise ValueError(
                f"{name} must be {wanted} for emission {list(emission.shape)}, "
                f"got {list(part.shape)}."
            )
    if lengths is not None and jnp.shape(lengths) != tuple(batch):
        raise ValueError(f"lengths must be {batch}, one a chain, got {list(jnp.shape(lengths))}.")


def restore_batch(per_chain: Array, chain: Chain) -> Array:
    """Put back the batch axis of one that `lay_out` took away."""
    lost = jnp.ndim(chain.emission) == 3 and jnp.shape(chain.emission)[0] == 1
    return per_chain[None] if lost else per_chain


def widen(transition: Array, like: Array) -> Array:
    """A transition matrix [K, K] or [K, K, B] that broadcasts against messages [K, 1, *B]."""
    return (
        transition
        if transition.ndim > like.ndim
        else transition.reshape(*transition.shape, *[1] * (like.ndim + 1 - transition.ndim))
    )
