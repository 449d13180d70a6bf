# %% [markdown]
# # Expectation-maximisation by hand
#
# Some data $x$ were seen, some, $z$, were not. Had we seen both, the likelihood would be easy to
# maximise; but what can be maximised is the likelihood of what was seen,
#
# $$\ell(\theta) = \log p(x \mid \theta) = \log \sum_z p(x, z \mid \theta),$$
#
# and the logarithm of a sum does not fall apart into easy terms. EM (Dempster, Laird & Rubin 1977)
# climbs $\ell$ all the same, by maximising easy functions one after the other. This notebook does
# so in a few lines of NumPy, for two classics, and has `jaxem` check the result.

# %%
# %matplotlib inline
import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxem
from jaxem.comparison.examples import LINKAGE, Linkage

jax.config.update("jax_enable_x64", True)
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#888888"

# %% [markdown]
# ## 197 animals
#
# Animals fall into four cells with probabilities that a genetic linkage $\theta$ decides:
#
# | cell | probability | animals $y$ |
# |---|---|---|
# | 1 | $1/2 + \theta/4$ | 125 |
# | 2 | $(1-\theta)/4$ | 18 |
# | 3 | $(1-\theta)/4$ | 20 |
# | 4 | $\theta/4$ | 34 |
#
# Up to constants $\ell(\theta) = y_1 \log(2+\theta) + (y_2+y_3)\log(1-\theta) + y_4\log\theta$.
# The first term is the culprit: it is a sum of two parts. Were we told of each animal in the first
# cell whether it belongs to the part $1/2$ or to the part $\theta/4$, and $x$ of them
# belonged to the latter, then $x + y_4$ animals would speak for $\theta$ and $y_2 + y_3$ against,
# and the answer would be a share: $\theta = (x + y_4) / (x + y_2 + y_3 + y_4)$.
#
# We are not told. But given a $\theta$ we know what to *expect* of $x$, and so
#
# * **E-step**: each of the $y_1$ animals belongs to the part $\theta/4$ with probability
#   $r = \frac{\theta/4}{1/2 + \theta/4} = \frac{\theta}{2+\theta}$, so we expect $x = y_1 r$;
# * **M-step**: $\theta \leftarrow (x + y_4) / (x + y_2 + y_3 + y_4)$.

# %%
y = np.array(LINKAGE)  # 125, 18, 20, 34


def log_likelihood(theta):
    return y[0] * np.log(2 + theta) + (y[1] + y[2]) * np.log(1 - theta) + y[3] * np.log(theta)


def e_step(theta):
    return theta / (2 + theta)  # r


def m_step(r):
    return (y[0] * r + y[3]) / (y[0] * r + y[1] + y[2] + y[3])


# %% [markdown]
# From $\theta = 1/2$, where Dempster, Laird & Rubin began, and with the iterates that they print.
# The maximum is known in closed form: $\theta^* = (15 + \sqrt{53809})/394$.

# %%
best = (15 + np.sqrt(53809)) / 394
theta = 0.5
print("step  theta         log-likelihood    error")
for step in range(9):
    print(f"{step:4}  {theta:.9f}  {log_likelihood(theta):.9f}  {best - theta:14.1e}")
    theta = m_step(e_step(theta))

# %% [markdown]
# Each step gains, and each error is some 0.13 of the one before: we shall see why. First, why does
# $\ell$ rise at all?
#
# ## A bound that touches
#
# Take *any* distribution $q(z)$. The logarithm is concave, so the logarithm of a mean is at least
# the mean of the logarithms (Jensen's inequality):
#
# $$\ell(\theta) = \log \sum_z q(z) \frac{p(x, z \mid \theta)}{q(z)}
#   \;\ge\; \sum_z q(z) \log \frac{p(x, z \mid \theta)}{q(z)} = \mathcal L(q, \theta).$$
#
# What is lost is a Kullback-Leibler divergence (Bishop 2006, 9.70):
#
# $$\log p(x \mid \theta) = \mathcal L(q, \theta) + \mathrm{KL}(q \,\|\, p(z \mid x, \theta)),
# \qquad \mathcal L(q, \theta) = \underbrace{\textstyle\sum_z q(z) \log p(x, z \mid
# \theta)}_{Q(\theta)} + \mathrm{entropy}(q).$$
#
# The gap is 0 exactly where $q$ is the posterior. So the **E-step** takes $q = p(z \mid x,
# \theta)$, which lifts the bound until it touches $\ell$ at the current $\theta$; and the
# **M-step** maximises the bound over $\theta$, that is $Q$, for the entropy of $q$ does not depend
# on $\theta$. Here $q$ is one number, the probability $r$ given to each of the $y_1$ animals:


# %%
def divergence(r, s):
    return r * np.log(r / s) + (1 - r) * np.log((1 - r) / (1 - s))


def bound(r, theta):
    """L(q, θ): Q and the entropy of q."""
    expected = y[0] * ((1 - r) * np.log(2) + r * np.log(theta))
    seen = (y[1] + y[2]) * np.log(1 - theta) + y[3] * np.log(theta)
    return expected + seen - y[0] * (r * np.log(r) + (1 - r) * np.log(1 - r))


for r, theta in [(0.5, 0.1), (0.2, 0.9), (e_step(0.3), 0.3)]:
    gap = y[0] * divergence(r, e_step(theta))
    print(f"L + KL = {bound(r, theta):8.4f} + {gap:7.4f} = {bound(r, theta) + gap:8.4f}", end="   ")
    print(f"l = {log_likelihood(theta):8.4f}")

# %% [markdown]
# Step by step, from a bad start: the bound (orange) touches $\ell$ (black) where we stand, in value
# and in slope; we go to its maximum; there a new one touches.

# %%
grid = np.linspace(0.02, 0.95, 300)
figure, panels = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
theta = 0.05
for step, ax in enumerate(panels):
    r = e_step(theta)
    ax.plot(grid, log_likelihood(grid), color="black", label=r"$\ell(\theta)$")
    ax.plot(grid, bound(r, grid), color=ORANGE, label=r"$\mathcal{L}(q, \theta)$")
    ax.plot(theta, log_likelihood(theta), "o", color="black")
    theta = m_step(r)
    ax.plot([theta] * 2, [bound(r, theta), log_likelihood(theta)], "o--", color=ORANGE)
    ax.set(title=f"step {step + 1}", xlabel=r"$\theta$", ylim=(-45, 75))
panels[0].legend(loc="lower center")
plt.show()

# %% [markdown]
# What the M-step gains of the bound, $\ell$ gains and more: it is above the bound, by the dashed
# gap that opened meanwhile. That is the whole proof of ascent, and it is an equality:
#
# $$\ell(\theta') - \ell(\theta) = Q(\theta') - Q(\theta) + \mathrm{KL}(p_{\text{old}} \,\|\,
# p_{\text{new}}) \;\ge\; Q(\theta') - Q(\theta) \;\ge\; 0.$$
#
# Seen from above, EM is coordinate ascent on $\mathcal L(q, \theta)$ (Neal & Hinton 1998): the
# E-step moves $q$ only, the M-step $\theta$ only. And in between, the two parts of $\ell$ behave
# like a pair of stairs: the E-step closes the gap without a change of $\ell$, the M-step raises
# both.

# %%
thetas, path, stack = [0.05], [], [(0.5, 0.05)]
for _ in range(3):
    r = e_step(thetas[-1])
    stack += [(r, thetas[-1]), (r, m_step(r))]
    thetas.append(m_step(r))
low = np.array([bound(*point) for point in stack])
gap = np.array([y[0] * divergence(r, e_step(theta)) for r, theta in stack])

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
r, theta = np.meshgrid(np.linspace(0.004, 0.55, 200), grid)
levels = bound(e_step(best), best) - np.array([160, 80, 40, 20, 10, 4, 1])
left.contour(r, theta, bound(r, theta), levels, colors=GREY, linestyles="-", linewidths=0.8)
left.plot(*zip(*stack, strict=True), "o-", color=ORANGE, markersize=4)
left.set(xlabel="$r$, which is $q$", ylabel=r"$\theta$", title="the bound from above")
steps = ["start", "E", "M", "E", "M", "E", "M"]
right.bar(range(7), low + 60, bottom=-60, color=BLUE, label=r"$\mathcal{L}(q, \theta)$")
right.bar(range(7), gap, bottom=low, color=ORANGE, hatch="//", label=r"KL$(q \,\|\, p)$")
right.set(xticks=range(7), xticklabels=steps, ylim=(-60, 80), title=r"together they are $\ell$")
right.legend(loc="upper left")
plt.show()

# %% [markdown]
# ## How fast
#
# Near the maximum EM multiplies the error by the same number at every step: the share of the
# information about $\theta$ that is *missing*. Complete data would have information
# $I_c = -Q''(\theta)$, the data at hand have $I_o = -\ell''(\theta)$, and
# $1 - I_o/I_c$ is the rate. Both are second derivatives, so let JAX take them.

# %%
r = e_step(best)


def q(theta):
    return (y[0] * r + y[3]) * jax.numpy.log(theta) + (y[1] + y[2]) * jax.numpy.log(1 - theta)


def log_likelihood_in_jax(theta):
    return y[0] * jax.numpy.log(2 + theta) + q(theta) - y[0] * r * jax.numpy.log(theta)


complete = -jax.grad(jax.grad(q))(best)
observed = -jax.grad(jax.grad(log_likelihood_in_jax))(best)
print(f"information: complete {complete:.3f}, observed {observed:.3f}")
print(f"rate of convergence {1 - observed / complete:.6f}, standard error {observed**-0.5:.5f}")

# %% [markdown]
# The same from `jaxem`, which is told of a model how its E-step and its M-step go, and takes the
# rest from there. `certify` puts one step to the test: the M-step against gradient ascent, the
# identities of this notebook, and the derivative of the whole EM map against $1 - I_o/I_c$.

# %%
fitted = jaxem.fit(Linkage.from_theta(0.5), LINKAGE, tol=1e-12).model
information = jaxem.information(fitted, LINKAGE)
certificate = jaxem.certify(fitted, LINKAGE)
print("theta {:.9f} ± {:.5f}".format(*information["theta"]), f"rate {information.rate:.6f}")
print(f"{sum(check.outcome == 'passed' for check in certificate)} checks passed")
print(f"{len(certificate.failed)} failed")

# %% [markdown]
# ## What EM does not promise
#
# $\ell$ never falls, and the limit is a *stationary* point (Wu 1983). That need not be a maximum.
# Murray (1977), in the discussion of the paper that named EM, gave twelve points of a bivariate
# normal with mean 0 and eight entries missing. Four complete points say nothing of the
# correlation $\rho$; the others only say that variances are larger than those four show.

# %%
nan = np.nan
rows = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]
                + 2 * [[2, nan], [-2, nan], [nan, 2], [nan, -2]])  # fmt: skip


def expected_scatter(row, covariance):
    """E[x xᵀ] given what was observed of a row: of the conditional mean, and its covariance."""
    seen = ~np.isnan(row)
    coefficients = covariance[:, seen] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    mean = coefficients @ row[seen]
    return np.outer(mean, mean) + covariance - coefficients @ covariance[seen]


def em_step(covariance):
    return np.mean([expected_scatter(row, covariance) for row in rows], axis=0)


# %% [markdown]
# The E-step fills in a missing entry by its expectation *and* adds the variance that it has around
# it; the M-step is the mean of the scatter matrices. From three starts that differ in $\rho$ alone:


# %%
def start(variance, rho):
    return variance * np.array([[1, rho], [rho, 1]])


def murray(covariance):
    """ℓ: a row speaks through the density of what was observed of it."""
    total = 0.0
    for row in rows:
        seen = ~np.isnan(row)
        part = covariance[np.ix_(seen, seen)]
        distance = row[seen] @ np.linalg.solve(part, row[seen])
        total -= 0.5 * (np.linalg.slogdet(2 * np.pi * part)[1] + distance)
    return total


for rho in (0.1, 0.0, -0.1):
    covariance = start(1.0, rho)
    for _ in range(1000):
        covariance = em_step(covariance)
    variance, rho_there = covariance[0, 0], covariance[0, 1] / covariance[0, 0]
    print(f"from rho {rho:4.1f}: variance {variance:.6f}, rho {rho_there:9.6f}", end=", ")
    print(f"l = {murray(covariance):.8f}")

# %% [markdown]
# Two maxima, $\sigma^2 = 8/3$ and $\rho = \pm 1/2$; but from $\rho = 0$ EM ends at
# $\sigma^2 = 5/2$, $\rho = 0$, which is none: by symmetry it cannot leave the axis. The map of
# $\ell$ shows a saddle.

# %%
variances, rhos = np.linspace(0.8, 5, 60), np.linspace(-0.85, 0.85, 61)
height = [[murray(start(variance, rho)) for variance in variances] for rho in rhos]
figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
levels = -29.97428641 - np.array([3, 2, 1, 0.5, 0.25, 0.12, 0.059, 0.03, 0.01])
ax.contour(variances, rhos, height, levels, colors=GREY, linestyles="-", linewidths=0.8)
for variance, rho in [(1, 0.1), (1, 0), (1, -0.1), (4.8, 0.7), (4.8, 0), (4.8, -0.05)]:
    path = [start(variance, rho)]
    for _ in range(200):
        path.append(em_step(path[-1]))
    path = np.array(path)
    ax.plot(path[:, 0, 0], path[:, 0, 1] / path[:, 0, 0], ".-", color=BLUE, markersize=3)
ax.plot([8 / 3, 8 / 3], [0.5, -0.5], "*", color=ORANGE, markersize=12, label="maxima")
ax.plot(2.5, 0, "X", color="black", markersize=8, label="saddle")
ax.set(xlabel=r"$\sigma^2$", ylabel=r"$\rho$", title="paths of EM")
ax.legend()
plt.show()

# %% [markdown]
# A saddle is unstable: beside it, EM walks away, and any rounding would do. It only takes its time,
# since the derivative of the EM map has an eigenvalue hardly above 1 there: one step multiplies a
# small $\rho$ by 16/15.

# %%
figure, ax = plt.subplots(figsize=(6.4, 3), layout="constrained")
for rho, colour in [(1e-3, ORANGE), (1e-6, GREEN), (1e-9, BLUE)]:
    covariance, correlations = start(2.5, rho), []
    for _ in range(450):
        correlations.append(covariance[0, 1] / covariance[0, 0])
        covariance = em_step(covariance)
    ax.semilogy(correlations, color=colour, label=f"from {rho:.0e}")
    print(f"from {rho:.0e}: first factor {correlations[1] / correlations[0]:.4f}")
ax.set(xlabel="step", ylabel=r"$\rho$")
ax.legend()
plt.show()

# %% [markdown]
# `jaxem` fits the same: a mixture of one Gaussian whose mean is frozen, and rows in which NaN
# stands for what is missing. From $\rho = 0$ it is stuck in the same place, and `converged`, for
# ascent alone can see no more; the certificate tells, from the derivative of the EM map.

# %%
data = jaxem.Samples.from_nan(rows)
weights = jaxem.Categorical.from_probs([1.0])
for rho in (0.1, 0.0):
    components = jaxem.Gaussian.from_moments(np.zeros((1, 2)), start(1.0, rho)[None])
    model = jaxem.Mixture(weights, components)
    result = jaxem.fit(model, data, frozen="components.mean", tol=1e-13)
    found = jaxem.certify(result.model, data, frozen="components.mean")["fixed_point.maximum"]
    print(f"l = {result.log_likelihood:.8f}, converged: {result.converged}")
    print("   ", found.outcome, "-", found.meaning)

# %% [markdown]
# ## In short
#
# * EM raises $\ell$ at every step, by a bound that touches it: E-step, the posterior; M-step, the
#   maximum of $Q$.
# * Its rate is the share of information that is missing: .13 for the animals, hardly less than 1
#   where the latent variables decide all.
# * It ends at a stationary point: a maximum, most often, but perhaps a lesser one, or a saddle. So
#   start more than once, and look at the second derivatives.
#
# [gaussian_mixtures](gaussian_mixtures.ipynb) does the same for the model that made EM known.
