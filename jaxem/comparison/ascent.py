"""Maximisers of a smooth function of a vector: what closed-form M-steps are checked against.

All three climb `function`, [P] -> [], from a `start` [P].  Values are meant to be O(1) and
coordinates O(1), as those of Q per observation in units of a standard deviation are.  Directions
along which nothing changes (the shift of a row of logits, a masked coordinate) are left alone: the
gradient is orthogonal to them.

An ascent ends where no partial derivative exceeds `tol`, after `max_steps`, or where rounding hides
all further progress; both may be traced, so that `max_steps=0` compiles the same program as any
other number.  A trial point where the function or its gradient is not finite is a refused step,
and a start where they are not is returned at once.  A stationary start is returned as well, be it a
saddle.  Under `vmap` a member that has ended stays as it is while others go on.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxem.pytree import pytree
from jaxem.semiring import PRECISION

Function = Callable[[Float[Array, " P"]], Float[Array, ""]]

RESOLUTION = 10  # values nearer than so many ε·max(1, |value|) are not told apart

ADAM_RATE = 0.2  # in units of the coordinates
ADAM_SOFTENING = 0.1  # Adam's ε, in units of the gradient
ADAM_MEMORY = 0.95  # β₂: at the usual 0.999 one steep start slows down a thousand steps
ADAM_PATIENCE = 50  # steps without progress before the rate is halved
ADAM_TRIALS = 5  # rates in a row without progress before it gives up
LBFGS_PATIENCE = 10  # steps without progress before it gives up

RADIUS = 1.0  # of the first trust region, in units of the coordinates
LARGEST_RADIUS = 100.0
SUFFICIENT = 1e-4  # the share of the predicted gain that makes a step acceptable
POOR, GOOD = 0.25, 0.75  # shares of it below and above which the trust region changes


@pytree
class Ascent:
    """Where an ascent ended.

    Examples:
        >>> import jax.numpy as jnp
        >>> counts = jnp.array([1.0, 2.0, 1.0])
        >>> def objective(log_rate):
        ...     return jnp.sum(counts * log_rate - jnp.exp(log_rate))
        >>> ascent = newton(objective, jnp.zeros(3), tol=1e-3, max_steps=20)
        >>> print(jnp.exp(ascent.point).round(2), bool(ascent.gradient <= 1e-3))
        [1. 2. 1.] True
    """

    point: Float[Array, " P"]
    value: Float[Array, ""]  # the function there
    num_steps: Int[Array, ""]  # taken or tried, not counting the trials of a line search
    gradient: Float[Array, ""]  # largest |partial derivative| there


@pytree
class _Place:
    point: Array  # [P]
    value: Array  # []
    slope: Array  # [P] gradient

    @property
    def gradient(self) -> Array:
        return jnp.max(jnp.abs(self.slope), initial=0)

    @property
    def finite(self) -> Array:
        return jnp.isfinite(self.value) & jnp.all(jnp.isfinite(self.slope))

    @property
    def resolution(self) -> Array:
        return RESOLUTION * jnp.finfo(self.value.dtype).eps * jnp.maximum(1, jnp.abs(self.value))

    def better(self, other: "_Place") -> Bool[Array, ""]:
        """Whether it is higher, or as high as values can tell and less steep."""
        gain = self.value - other.value
        less_steep = self.gradient < other.gradient
        return self.finite & (
            (gain > other.resolution) | ((gain >= -other.resolution) & less_steep)
        )


def _place(function: Function, point: Array) -> _Place:
    return _Place(point, *jax.value_and_grad(function)(point))


def _choose(condition: Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b).astype(b.dtype), one, other)


@pytree
class _Adam:
    here: _Place
    best: _Place
    before: _Place  # the best of a step ago
    moments: Any  # the optimiser's state
    rate: Array  # []
    idle: Array  # [] steps without progress
    num_steps: Array  # []


def adam(
    function: Function,
    start: Float[Array, " P"],
    *,
    tol: float | Float[Array, ""],
    max_steps: int | Int[Array, ""],
) -> Ascent:
    """The best point that Adam visits.

    The policy: the rate is 0.2 and Adam's ε 0.1.  Far from the maximum a coordinate moves by the
    rate a step; where the gradient is small beside ε the method becomes gradient ascent with
    momentum and rate 0.2 / 0.1, which converges linearly if no curvature exceeds
    19 = (1 + β₁) / (1 − β₁).  After 50 steps without progress, or a refused one, it goes back to
    the best point, forgets its moments and halves the rate; 250 without progress end it.  Curvature
    of a hundredth takes some 600 steps to a gradient of 1e-9 in double precision.

    Kingma & Ba (2015), algorithm 1, with β₂ = 0.95.
    """
    solver: Any = optax.adam(1.0, b2=ADAM_MEMORY, eps=ADAM_SOFTENING)
    first = _place(function, start)
    fresh = solver.init(start)

    def running(state: _Adam) -> Array:
        return (
            (state.num_steps < max_steps)
            & (state.best.gradient > tol)
            & state.best.finite
            & (state.idle < ADAM_TRIALS * ADAM_PATIENCE)
        )

    def step(state: _Adam) -> _Adam:
        here = state.here
        updates, moments = solver.update(-here.slope, state.moments, here.point)
        trial = _place(function, here.point + state.rate * updates)
        best = _choose(trial.better(state.best), trial, state.best)
        idle = _idle(state)
        stuck = ~trial.finite | ((idle > 0) & (idle % ADAM_PATIENCE == 0))
        return _Adam(
            here=_choose(stuck, best, trial),
            best=best,
            before=state.best,
            moments=_choose(stuck, fresh, moments),
            rate=jnp.where(stuck, state.rate / 2, state.rate),
            idle=idle,
            num_steps=state.num_steps + 1,
        )

    zero = jnp.zeros((), int)
    rate = jnp.full_like(first.value, ADAM_RATE)
    state = lax.while_loop(running, step, _Adam(first, first, first, fresh, rate, zero, zero))
    return _ascent(state.best, state.num_steps)


def _idle(state: Any) -> Array:
    """Steps without progress, by what is in memory.

    In `trial.better(best)` XLA may compute the trial twice and round it differently, once for the
    comparison and once to keep it: a point could be found better than itself for ever.
    """
    return jnp.where(state.best.better(state.before), 0, state.idle + 1)


def _ascent(place: _Place, num_steps: Array) -> Ascent:
    return Ascent(place.point, place.value, num_steps, place.gradient)


@pytree
class _LBFGS:
    here: _Place
    best: _Place
    before: _Place  # the best of a step ago
    memory: Any  # the optimiser's state
    idle: Array  # [] steps without progress
    num_steps: Array  # []


def lbfgs(
    function: Function,
    start: Float[Array, " P"],
    *,
    tol: float | Float[Array, ""],
    max_steps: int | Int[Array, ""],
) -> Ascent:
    """The best point that limited-memory BFGS with a zoom line search visits.

    A step that leads nowhere or lower is taken back, and the memory emptied.  Ten steps without
    progress end it.

    Liu & Nocedal (1989); Nocedal & Wright (2006) algorithms 7.4, 7.5, 3.5 and 3.6; near the maximum
    the line search compares slopes, as Hager & Zhang (2006) do.
    """
    solver: Any = optax.lbfgs()

    def fall(point: Array) -> Array:
        value = function(point.astype(start.dtype))  # optax's step sizes have the default dtype
        return jnp.where(jnp.isfinite(value), -value, jnp.inf)  # +inf is no success either

    value_and_slope: Any = optax.value_and_grad_from_state(fall)
    first = _place(function, start)
    fresh = solver.init(start)

    def running(state: _LBFGS) -> Array:
        return (
            (state.num_steps < max_steps)
            & (state.best.gradient > tol)
            & state.best.finite
            & (state.idle < LBFGS_PATIENCE)
        )

    def step(state: _LBFGS) -> _LBFGS:
        here = state.here
        updates, memory = solver.update(
            -here.slope,
            state.memory,
            here.point,
            value=-here.value,
            grad=-here.slope,
            value_fn=fall,
        )
        point = here.point + updates.astype(here.point.dtype)
        value, slope = value_and_slope(point, state=memory)
        trial = _Place(point, -value, -slope)
        best = _choose(trial.better(state.best), trial, state.best)
        moved = trial.finite & jnp.any(point != here.point)
        kept = moved & (trial.value >= best.value - best.resolution)
        return _LBFGS(
            here=_choose(kept, trial, best),
            best=best,
            before=state.best,
            memory=_choose(kept, memory, fresh),
            idle=_idle(state),
            num_steps=state.num_steps + 1,
        )

    zero = jnp.zeros((), int)
    state = lax.while_loop(running, step, _LBFGS(first, first, first, fresh, zero, zero))
    return _ascent(state.best, state.num_steps)


@pytree
class _Newton:
    here: _Place
    before: _Place  # where it was a step ago
    radius: Array  # [] of the trust region
    taken: Array  # [] whether the last step was
    hidden: Array  # [] whether rounding hides what a step gains
    num_steps: Array  # []


def newton(
    function: Function,
    start: Float[Array, " P"],
    *,
    tol: float | Float[Array, ""],
    max_steps: int | Int[Array, ""],
) -> Ascent:
    """Where Newton's method in a trust region ends, without ever forming the Hessian.

    A step maximises the quadratic model in the trust region by truncated conjugate gradients on
    Hessian-vector products; along negative curvature it goes to the boundary.  It is taken if the
    value rises by a share of what the model predicts or, where values cannot tell, if the largest
    partial derivative falls.  The method ends early where a step is refused whose gain would have
    been below the resolution of the value, or that is too short to move the point.

    Steihaug (1983); Nocedal & Wright (2006) algorithms 4.1 and 7.2.
    """
    first = _place(function, start)
    tiny = jnp.finfo(first.value.dtype).eps

    def running(state: _Newton) -> Array:
        progress = ~state.taken | state.here.better(state.before)  # in memory; see `_idle`
        unfinished = (state.num_steps < max_steps) & (state.here.gradient > tol)
        return unfinished & progress & ~state.hidden

    def step(state: _Newton) -> _Newton:
        here = state.here
        _, product = jax.linearize(jax.grad(function), here.point)
        move, predicted = _truncated_cg(product, here.slope, state.radius)
        trial = _place(function, here.point + move)
        gain = trial.value - here.value
        enough = gain >= SUFFICIENT * predicted
        level = jnp.abs(gain) <= here.resolution
        below = predicted <= here.resolution
        taken = trial.better(here) & (enough | level)
        length = _norm(move)
        share = gain / predicted
        shrink = ~taken | (~level & (share < POOR))
        grow = taken & ~level & (share > GOOD) & (length > GOOD * state.radius)
        radius = jnp.where(shrink, length / 4, state.radius)
        radius = jnp.where(grow, jnp.minimum(2 * radius, LARGEST_RADIUS), radius)
        hidden = ~taken & (below | (radius <= tiny * jnp.maximum(1, _norm(here.point))))
        arrived = _choose(taken, trial, here)
        return _Newton(arrived, here, radius, taken, hidden, state.num_steps + 1)

    radius = jnp.full_like(first.value, RADIUS)
    zero, false = jnp.zeros((), int), jnp.zeros((), bool)
    initial = _Newton(first, first, radius, false, ~first.finite, zero)
    state = lax.while_loop(running, step, initial)
    return _ascent(state.here, state.num_steps)


@pytree
class _CG:
    move: Array  # [P] s
    rest: Array  # [P] gradient of the model at s
    direction: Array  # [P]
    gain: Array  # [] of the model at s
    count: Array  # []
    done: Array  # []


def _truncated_cg(
    product: Callable[[Array], Array], slope: Array, radius: Array
) -> tuple[Array, Array]:
    """Roughly the best step s within the radius, and the gain g·s + ½ s·Hs that it promises."""
    steepness = _norm(slope)
    # The forcing term √|g| gives order 1.5 at the end.  What is left of the gradient along a null
    # direction is rounding, ε where values are O(1), and nothing to solve for.
    rounding = jnp.finfo(slope.dtype).eps
    enough = jnp.maximum(steepness * jnp.minimum(0.5, jnp.sqrt(steepness)), rounding)

    def step(state: _CG) -> _CG:
        image = product(state.direction)
        curvature = -_dot(state.direction, image)
        square = _dot(state.rest, state.rest)
        uphill = ~(curvature > 0)  # NaN too
        full = square / jnp.where(uphill, 1, curvature)
        outside = uphill | ~(_norm(state.move + full * state.direction) < radius)
        length = jnp.where(outside, _to_boundary(state.move, state.direction, radius), full)
        move = state.move + length * state.direction
        rest = state.rest + length * image
        gain = state.gain + length * _dot(state.rest, state.direction) - length**2 * curvature / 2
        direction = rest + _dot(rest, rest) / square * state.direction
        done = outside | (_norm(rest) <= enough)
        return _CG(move, rest, direction, gain, state.count + 1, done)

    nothing = jnp.zeros_like(slope)
    zero = jnp.zeros((), int)
    initial = _CG(nothing, slope, slope, jnp.zeros_like(radius), zero, steepness == 0)
    # Twice the number of steps that exact arithmetic needs.
    state = lax.while_loop(
        lambda state: ~state.done & (state.count < 2 * len(slope)), step, initial
    )
    return state.move, state.gain


def _to_boundary(move: Array, direction: Array, radius: Array) -> Array:
    """The positive t with |move + t direction| = radius."""
    square, along = _dot(direction, direction), _dot(move, direction)
    room = jnp.maximum(radius**2 - _dot(move, move), 0)
    return room / (along + jnp.sqrt(along**2 + square * room))


def _dot(one: Array, other: Array) -> Array:
    return jnp.dot(one, other, precision=PRECISION)


def _norm(vector: Array) -> Array:
    return jnp.sqrt(_dot(vector, vector))
