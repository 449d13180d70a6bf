"""What a mixture or an HMM does with a family that offers less, or more, than it must."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxem import em, parameters
from jaxem.data import refuse
from jaxem.lockstep import everywhere
from jaxem.missing import Missing
from jaxem.semiring import log_normalize


@dataclass(frozen=True)
class Plain:
    """A family as the form of itself."""

    family: Any

    @property
    def accurate(self) -> bool:
        """True: it is the definition."""
        return True

    def log_prob(self, x: Array) -> Array:
        """Log-density of every row under every member; [N, K]."""
        return self.family.log_prob(x)

    def stats(self, x: Array, responsibilities: Array) -> Any:
        """The family's statistics."""
        return self.family.stats(x, responsibilities)

    def finish(self, total: Any) -> Any:
        """The family's statistics, which need no finishing."""
        return total


def in_best_form(
    families: tuple[Any, ...], walk: Callable[..., Any], missing: Missing | None = None
) -> Any:
    """`walk(*forms)` with the families in their fast form where that is accurate, plain elsewhere.

    The choice is made once, from the parameters, outside the loop over rows.  Where entries are
    `missing` the forms are those that take `Partial` rows.
    """
    forms = tuple(form(family, missing) for family in families)
    traced = [candidate.accurate for candidate in forms if candidate.accurate is not True]
    if not traced:
        return walk(*forms)
    plain = tuple(plain_form(family, missing) for family in families)
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(families)]
    accurate = everywhere(_all(traced), void=~_all(finite))
    return lax.cond(accurate, lambda: walk(*forms), lambda: walk(*plain))


def _all(conditions: list[Array]) -> Array:
    return functools.reduce(jnp.logical_and, conditions)


def plain_form(family: Any, missing: Missing | None = None) -> Any:
    """The family as the form of itself."""
    if missing is not None:
        has_plain = hasattr(family, "plain_partial_form")
        return (family.plain_partial_form if has_plain else _partial_form(family))(missing.patterns)
    return family.plain_form() if hasattr(family, "plain_form") else Plain(family)


def form(family: Any, missing: Missing | None = None) -> Any:
    """The family's fast form; the family itself if it has none."""
    if missing is not None:
        return _partial_form(family)(missing.patterns)
    return family.form() if hasattr(family, "form") else plain_form(family)


def _partial_form(family: Any) -> Callable[[Any], Any]:
    check_partial(family)
    return family.partial_form


def check_partial(family: Any) -> None:
    """Raise a ValueError unless the family can be asked about rows with missing entries."""
    if hasattr(family, "check_partial"):
        family.check_partial()
    if not hasattr(family, "partial_form"):
        raise ValueError(
            f"{type(family).__name__} has no partial_form: it does not say what is known of rows "
            "with missing entries; give it one, or leave those rows out."
        )


def num_factors(family: Any) -> int:
    """How many covariances are factored anew for each pattern; 0 if features are independent."""
    return getattr(family, "num_factors", 0)


def translate(family: Any, center: Array | None) -> Any:
    """The members in the centred coordinates of prepared data."""
    return family if center is None else family.translate(-center)


def is_located(family: Any) -> bool:
    """Whether data for this family may be centred."""
    return hasattr(family, "translate") and getattr(family, "is_located", True)


def stats(form: Any, anchor: Any, x: Array, responsibilities: Array) -> Any:
    """Statistics about the means of `anchor` where `form` is what the rows are explained by.

    The two differ in a second pass; what is latent inside a member is then inferred by `form`.
    """
    if hasattr(anchor, "stats_given"):
        return anchor.stats_given(form, x, responsibilities)
    return anchor.stats(x, responsibilities)


def infer(form: Any, x: Any) -> Any:
    """The rows with what the form makes of their missing entries, if that is worth keeping."""
    return form.infer(x) if hasattr(form, "infer") else x


def finish(form: Any, anchor: Any, total: Any) -> Any:
    """The family's statistics about the means of `anchor`, from their sums over rows.

    What is missing of the rows is inferred by `form`.
    """
    if hasattr(anchor, "finish_given"):
        return anchor.finish_given(form, total)
    return anchor.finish(total)


def expected(form: Any, x: Any, responsibilities: Array) -> Array:
    """Rows as the members, mixed by their responsibilities, expect them; [n, ...].

    Where an entry is observed it holds anything.
    """
    _check_imputation(form, "expected")
    return form.expected(x, responsibilities)


def draw(form: Any, key: Array, x: Any, member: Array) -> Array:
    """Rows drawn from the member [n] of each given what is observed of them; [n, ...].

    Where an entry is observed it holds anything.
    """
    _check_imputation(form, "draw")
    return form.draw(key, x, member)


def _check_imputation(form: Any, method: str) -> None:
    if not hasattr(form, method):
        raise ValueError(
            f"{type(form).__name__} has no {method}: it does not say what to put in the place of "
            "missing entries; give this partial form of the family one."
        )


def log_joint(form: Any, x: Array) -> Array:
    """log p(x, inner | member) of every row, [K, I, n]: I inner alternatives, 1 for most families.

    Its sum over alternatives is the density; its shares are the posterior of what is latent inside.
    """
    return form.log_joint(x) if hasattr(form, "log_joint") else form.log_prob(x).T[:, None]


def log_inner(form: Any, x: Array) -> Array:
    """log p(inner | member, x) of every row, [K, I, n]."""
    return jnp.moveaxis(log_normalize(jnp.moveaxis(log_joint(form, x), 1, -1)), -1, 1)


def missing_entropy(form: Any, x: Any) -> Array:
    """Entropy of what is missing of every row given the alternative, [K, I, n].

    Its measure is the one that the form's Q has: Lebesgue's, or of counts 1/x!.
    """
    found = form.missing_entropy(x)
    return found if found.ndim == 3 else found.T[:, None]


def missing_divergence(form: Any, other: Any, x: Any) -> Array:
    """Divergence of what is missing under `form` from what it is under `other`, [K, I, n]."""
    found = form.missing_divergence(other, x)
    return found if found.ndim == 3 else found.T[:, None]


def check(family: Any) -> None:
    """The family's own check of its shapes, if it has one."""
    if hasattr(family, "check"):
        family.check()


def num_features(family: Any) -> int:
    """How many numbers its form makes of a row: 1, x and x² unless the family says otherwise."""
    return getattr(family, "num_features", 1 + 2 * int(np.prod(family.event_shape)))


def near(family: Any, proposal: Any) -> Array:
    """Whether the step to `proposal` kept its digits; without a location it always does."""
    return family.near(proposal) if hasattr(family, "near") else jnp.asarray(True)


def maximize(family: Any, stats: Any, part: str, frozen: parameters.Names) -> Any:
    """The part's M-step, on what is not frozen of it."""
    inner = parameters.within(frozen, part)
    if inner is None:
        return family
    return family.maximize(stats, inner) if inner else family.maximize(stats)


def with_pretend(family: Any, stats: Any, prior: em.Prior) -> Any:
    """The statistics and those of the pretend data, where the family knows what to pretend."""
    if hasattr(family, "with_pretend"):
        return family.with_pretend(stats, prior)
    if hasattr(family, "pretend"):
        return jax.tree.map(jnp.add, stats, family.pretend(prior))
    return stats


def log_prior(family: Any, prior: em.Prior) -> Array | float:
    """Expected log-probability of the part's pretend data."""
    if hasattr(family, "log_prior"):
        return family.log_prior(prior)
    if not hasattr(family, "pretend"):
        return 0.0
    return family.expected_log_prob(family.pretend(prior), family)


def validate(family: Any, x: Any, leading: int = 1) -> Any:
    """Rows checked by the family, or for NaN alone where it has no check of its own.

    `leading` is 1 for rows [N, ...] and 2 for sequences [B, T, ...].
    """
    if hasattr(family, "validate"):
        return family.validate(x, leading)
    return finite_rows(x, family.event_shape, leading)


def finite_rows(x: Any, event_shape: tuple[int, ...], leading: int = 1) -> Any:
    """Rows [N, *event_shape], or sequences of them, as an array of real, finite numbers.

    Raises:
        ValueError: another shape; NaN or infinity, named by row and column; no numbers at all.
    """
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        if x.dtype != bool:
            raise ValueError(f"data must be real numbers, got an array of dtype {x.dtype}.")
        x = x.astype(np.int32)
    if event_shape == (1,) and x.ndim == leading:
        x = x[..., None]
    if x.ndim != leading + len(event_shape) or x.shape[leading:] != event_shape:
        what, axes = ("rows", ["N"]) if leading == 1 else ("sequences", ["B", "T"])
        expected = ", ".join([*axes, *map(str, event_shape)])
        raise ValueError(
            f"{what} must have shape [{expected}] for this family, got {list(x.shape)}."
        )
    if jnp.issubdtype(x.dtype, jnp.floating):
        bad = ~np.isfinite(x) if isinstance(x, np.ndarray) else ~jnp.isfinite(x)
        refuse(
            bad,
            x,
            "data must be finite",
            "drop or repair that row, or declare it missing by `from_nan`.",
            leading,
        )
        # A square must be finite too, in the dtype that JAX will compute in.
        computed = jnp.promote_types(jax.dtypes.canonicalize_dtype(x.dtype), "f4")
        limit = float(jnp.finfo(computed).max) ** 0.5 / 2
        limit = min(limit, float(jnp.finfo(x.dtype).max))  # half precision has no number so large
        refuse(abs(x) > limit, x, "data are too large", "rescale that column.", leading)
    return x
