# %% [markdown]
# # Checking M-steps
#
# An M-step is a formula, and formulas have mistakes. Worse, a wrong M-step need not show: $\ell$
# may rise at every step all the same, and converge to nearly the right place. This notebook checks
# a right one in many ways, lets a wrong one be caught, and asks the same derivatives how fast EM is
# and how sure its answer.

# %%
# %matplotlib inline
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxem
from jaxem.comparison.ascent import adam, lbfgs, newton
from jaxem.parameters import ravel, unravel
from jaxem.pytree import pytree

jax.config.update("jax_enable_x64", True)
np.set_printoptions(precision=6, suppress=True)
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#888888"

x = jnp.asarray(jaxem.datasets.old_faithful()[:, 1:])  # [N, 1] waiting times, in minutes
N = len(x)
start = jaxem.Mixture(
    jaxem.Categorical.from_probs([0.5, 0.5]),
    jaxem.DiagonalGaussian.from_moments([[55.0], [80.0]], [[25.0], [25.0]]),
)

# %% [markdown]
# ## One step in closed form, or many by gradients
#
# The E-step is done: responsibilities, and with them $Q$. The M-step knows where its maximum is;
# gradient ascent would have to find it. For that, the constraints must go: $\pi_k > 0$ and
# $\sum_k \pi_k = 1$ are what a *softmax* of any real logits $a_k$ fulfils, and a variance is the
# exponential of any real number. `jaxem` stores its parameters that way, so any vector of leaves is
# a model.

# %%
stats, log_likelihood = start.e_step(x)
proposal = start.m_step(stats, jaxem.Prior(floor=0.0))
print("leaves", ravel(start))
print("pi", proposal.weights.probs, " mu", proposal.components.mean.ravel(), end="  ")
print("variance", proposal.components.variance.ravel())

# %% [markdown]
# Under the softmax no multiplier is needed. As $\partial \log \pi_j / \partial a_k =
# \delta_{jk} - \pi_k$,
#
# $$\frac{\partial Q}{\partial a_k} = \sum_j N_j (\delta_{jk} - \pi_k) = N_k - N \pi_k,$$
#
# which is 0 exactly at the solution that the multiplier gave, $\pi_k = N_k / N$. The Hessian is
# $-N (\mathrm{diag}\,\pi - \pi \pi^\top)$: concave, and flat along $(1, \dots, 1)$, for a constant
# added to all logits changes nothing.


# %%
def q_of_logits(logits):
    return start.expected_log_prob(stats, replace(proposal, weights=jaxem.Categorical(logits)))


counts, pi = stats.weights, jnp.array([0.2, 0.8])
print("by autodiff ", jax.grad(q_of_logits)(jnp.log(pi)))
print("N_k - N pi_k", counts - N * pi)
print("Hessian's eigenvalues", jnp.linalg.eigvalsh(jax.hessian(q_of_logits)(jnp.log(counts / N))))

# %% [markdown]
# Three ways to climb $Q$ over all six leaves, from the current $\theta$, in steps of a standard
# deviation: Adam, L-BFGS, and Newton's method in a trust region.

# %%
units = jnp.array([1.0, 1.0, 5.0, 5.0, 1.0, 1.0])  # of logits, means, log-deviations
best = start.expected_log_prob(stats, proposal) / N


def q(moved):
    return start.expected_log_prob(stats, unravel(start, ravel(start) + units * moved)) / N


def gap(method, num_steps):
    """How far below the maximum an ascent is after so many steps."""
    return best - method(q, jnp.zeros(6), tol=0.0, max_steps=num_steps).value


# %%
num_steps = jnp.arange(150)
figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for method, colour in [(adam, GREY), (lbfgs, GREEN), (newton, BLUE)]:
    gaps = jax.vmap(lambda number, method=method: gap(method, number))(num_steps)
    ax.plot(num_steps, jnp.clip(gaps, 2e-15), color=colour, label=method.__name__)
ax.plot([0, 1], [gaps[0], 2e-15], "o-", color=ORANGE, label="closed form", clip_on=False)
ax.set(yscale="log", xlabel="step", ylabel="$(Q^* - Q) / N$", ylim=(2e-15, 1))
ax.set_xscale("symlog", linthresh=1)
ax.set_xlim(0, 150)
ax.set_xticks([0, 1, 3, 10, 30, 100], ["0", "1", "3", "10", "30", "100"])
figure.legend(loc="outside upper left", ncols=4, frameon=False)
plt.show()

# %% [markdown]
# All come to the same place, and the formula is there at once. What gradients cannot do is find a
# *higher* place: $Q$ has one maximum. That is check number one.
#
# ## The certificate
#
# `certify` takes a step from $\theta$ to $\theta'$ and says of each claim how far off it is, and
# how far it may be:
#
# * `lagrange`: one multiplier a row of probabilities, and it is minus an expected count;
# * `softmax`: the comparison above, from four random starts;
# * `second_order`: the Hessian of $Q$ is negative on all that the constraints leave free;
# * `fisher`: $\nabla \ell(\theta) = \nabla Q(\theta)$, where the bound touches;
# * `natural`, `preconditioned`: EM as a gradient step, of which more below;
# * `decomposition`, `ascent`: $\ell = \mathcal L + \mathrm{KL}$, and ascent as an equality;
# * `fixed_point`: where $\theta$ is one, of what kind.

#
# First the fit that it is about: two normals under the waiting times, and how EM came to them.

# %%
result = jaxem.fit(start, x, tol=1e-11)
fitted = result.model
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
jaxem.plots.mixture(fitted, x, names=["waiting (min)"], ax=left)
jaxem.plots.trace(result, ax=right)
plt.show()

# %%
certificate = jaxem.certify(fitted, x)
certificate

# %%
jaxem.plots.certificate(certificate).figure

# %% [markdown]
# In numbers: the multiplier of the weights, recovered from the gradient of $Q$ by autodiff, beside
# the one that theory gives.

# %%
facts = certificate["lagrange.weights.multiplier"].facts
print("lambda recovered", facts["recovered"], " theory", facts["theory"])
print("passed:", certificate.passed, " failed:", len(certificate.failed))

# %% [markdown]
# ## A wrong M-step
#
# The variance of a sample is often divided by $n - 1$. So, by force of habit, somebody divides by
# $N_k - 1$. Here is a family that does; it hands on everything else.


# %%
@pytree
class Unbiased:
    """Normals whose M-step divides by N_k − 1."""

    normal: jaxem.DiagonalGaussian
    event_shape = (1,)
    num_members = 2

    def log_prob(self, x):
        return self.normal.log_prob(x)

    def stats(self, x, responsibilities):
        return self.normal.stats(x, responsibilities)

    def expected_log_prob(self, stats, candidate):
        return self.normal.expected_log_prob(stats, candidate.normal)

    def maximize(self, stats):
        best, n = self.normal.maximize(stats), stats.weight[:, None]
        variance = best.variance * n / (n - 1)  # a mistake: the maximum has n
        return Unbiased(jaxem.DiagonalGaussian.from_moments(best.mean, variance))


# %%
wrong = jaxem.fit(replace(start, components=Unbiased(start.components)), x, tol=1e-8)
print(f"right {result.log_likelihood:.4f}, {result.outcome} after {result.num_steps} steps")
print(f"wrong {wrong.log_likelihood:.4f}, {wrong.outcome} after {wrong.num_steps} steps", end=", ")
print("never fell" if wrong.largest_fall == 0 else "fell")
print("deviations", fitted.components.variance.ravel() ** 0.5, end=" and ")
print(wrong.model.components.normal.variance.ravel() ** 0.5)

# %% [markdown]
# It converges, to a point that looks right; $\ell$ rose all the way. No test of ascent finds
# anything. The certificate does, and says where: the weights are right, the components are not.

# %%
caught = jaxem.certify(wrong.model, x)
for check in caught.failed:
    print(f"{check.name:20} {check.value:.1e}, allowed {check.tolerance:.1e}")
jaxem.plots.certificate(caught).figure

# %% [markdown]
# ## EM as a gradient step
#
# An EM step is a gradient step on $\ell$, with a matrix in front of the gradient (Xu & Jordan
# 1996):
#
# $$\theta' - \theta = P(\theta)\, \nabla \ell(\theta), \qquad
# \pi:\; \tfrac1N (\mathrm{diag}\,\pi - \pi\pi^\top), \qquad
# \mu_k:\; \sigma_k^2 / N_k, \qquad \dots$$
#
# $P$ is positive definite, so EM climbs; and it is nearly the inverse of the information of
# complete data, so EM knows how far to go, in whatever units. In natural parameters it is the
# *natural* gradient. Autodiff of $\ell$ alone gives the M-step:

# %%
slope = jax.grad(lambda model: model.log_likelihood(x))(start)
variance, counts = start.components.variance, stats.weights[:, None]
print("weights", start.weights.probs + slope.weights.logits / N, end="  ")
print("means", (start.components.mean + variance / counts * slope.components.mean).ravel())
print("M-step ", proposal.weights.probs, "       ", proposal.components.mean.ravel())

# %% [markdown]
# (By the chain rule the derivative in logits is $(\mathrm{diag}\,\pi - \pi\pi^\top)$ times that in
# probabilities, so that one division by $N$ is left.)
#
# What the matrix is good for shows in a plane: the weight of the short kind, a share, and its mean,
# in minutes, all else fixed. The plain gradient must take the small steps that the share asks for,
# and the mean hardly moves.


# %%
def in_plane(point):
    """ℓ with this π₁ and μ₁."""
    weight, mean = point
    weights = jaxem.Categorical(jnp.log(jnp.stack([weight, 1 - weight])))
    components = replace(fitted.components, mean=fitted.components.mean.at[0, 0].set(mean))
    log_joint = weights.log_probs + components.log_prob(x)
    return jax.nn.logsumexp(log_joint, axis=1).sum()


def em_in_plane(point):
    """π₁ and μ₁ after a step of EM: a gradient step with Xu and Jordan's matrix."""
    (weight, mean), slope = point, jax.grad(in_plane)(point)
    share = weight + weight * (1 - weight) / N * slope[0]
    return jnp.stack([share, mean + fitted.components.variance[0, 0] / (N * share) * slope[1]])


# %%
climb, em_step = jax.jit(jax.grad(in_plane)), jax.jit(em_in_plane)
paths = {"EM": [jnp.array([0.6, 70.0])], "gradient ascent": [jnp.array([0.6, 70.0])]}
for _ in range(40):
    paths["EM"].append(em_step(paths["EM"][-1]))
    here = paths["gradient ascent"][-1]
    paths["gradient ascent"].append(here + climb(here) / 1000)

weight, mean = jnp.meshgrid(jnp.linspace(0.1, 0.8, 80), jnp.linspace(45, 75, 80))
height = jax.vmap(in_plane)(jnp.stack([weight.ravel(), mean.ravel()], 1)).reshape(weight.shape)
levels = height.max() - jnp.array([250, 120, 60, 30, 15, 6, 2])
figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
ax.contour(weight, mean, height, levels, colors=GREY, linestyles="-", linewidths=0.8)
for (name, path), look in zip(paths.items(), ("o-", ".-"), strict=True):
    colour = BLUE if name == "EM" else ORANGE
    ax.plot(*np.array(path).T, look, color=colour, label=f"{name}, 40 steps", markersize=4)
ax.set(xlabel=r"$\pi_1$", ylabel=r"$\mu_1$ (min)")
ax.legend(loc="lower right")
plt.show()

# %% [markdown]
# ## How fast
#
# Near the maximum, EM shrinks the error by the largest *fraction of missing information* a step:
# the spectral radius of $I - I_c^{-1} I_o$ (Dempster, Laird & Rubin 1977). And $\ell$, quadratic
# there, closes its gap by the square of it. Where that is slow, `accelerate` extrapolates.
# Of the five fractions three are not 0: the log-odds of the kinds are a quadratic in $x$, and what
# is missing is information about its three coefficients.

# %%
information = jaxem.information(fitted, x)
print(f"{information.kind}, rate {information.rate:.6f}")
print("fractions of missing information", np.abs(information.eigenvalues.round(6)))

# %%
plain = jaxem.fit(start, x, tol=1e-12)
faster = jaxem.fit(start, x, tol=1e-12, accelerate="squarem")
best, steps = jnp.maximum(plain.log_likelihood, faster.log_likelihood), np.arange(30)

figure, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
for name, found, colour in [("EM", plain, BLUE), ("squarem", faster, ORANGE)]:
    away = best - found.trace[:30]
    ax.semilogy(
        steps, np.where(away > 1e-10, away, np.nan), "o-", color=colour, markersize=4, label=name
    )
    print(f"{name}: {found.num_steps} steps")
theory = (best - plain.trace[10]) * information.rate ** (2.0 * (steps - 10))
ax.semilogy(steps, theory, "--", color="black", label="rate², through step 10")
ax.set(xlabel="step", ylabel=r"$\ell^* - \ell$", ylim=(1e-10, 100))
ax.legend()
plt.show()

# %% [markdown]
# ## How sure
#
# The inverse of the observed information is the covariance of the estimates. EM does not need it on
# the way, and so does not have it at the end; but it is complete information less missing
# information (Louis 1982), and both are derivatives.

# %%
print(information)

# %% [markdown]
# The last column says what not knowing the kinds costs: for the variances, nearly two fifths of the
# variance of the estimate. Had the kinds been written down, only the solid part of each bar would
# be left of the standard error.

# %%
figure, ax = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
known = np.sqrt(1 - information.missing_fraction)
ax.barh(information.names, 1 + 0 * known, color=ORANGE, hatch="//", alpha=0.6, label="as it is")
ax.barh(information.names, known, color=BLUE, label="had the kinds been known")
ax.set(xlabel="standard error, relative")
ax.invert_yaxis()
figure.legend(loc="outside upper left", ncols=2, frameon=False)
plt.show()

# %% [markdown]
# ## In short
#
# * A closed form is one step where gradients need ten, or hundreds, and it can be checked by them.
# * Rising $\ell$ proves no M-step right; stationarity of $Q$ does, and `certify` tests it, for
#   families of one's own as well.
# * The missing information says how slow EM is, and how much surer one would be of complete data.
#
# Next: [ctc_and_transducer](ctc_and_transducer.ipynb), where what is latent is an alignment.
