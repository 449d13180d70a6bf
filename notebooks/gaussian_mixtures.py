# %% [markdown]
# # Gaussian mixtures
#
# Old Faithful, a geyser, erupts for some minutes, and then has one wait for an hour or so. Short
# eruptions and short waits go together, and so do long ones: there seem to be two kinds, but nobody
# wrote down which eruption was of which kind. That is a latent variable.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap

import jaxem
from jaxem.initialize import Start, kmeans_plus_plus

jax.config.update("jax_enable_x64", True)
np.set_printoptions(precision=4, suppress=True)
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#888888"
NAMES = "eruption (min)", "waiting (min)"

x = jnp.asarray(jaxem.datasets.old_faithful())  # [N, D]
N, D = x.shape
print(N, D, x[:3])

# %% [markdown]
# The model: the kind $z_n$ of row $n$ is $k$ with probability $\pi_k$, and then $x_n$ is normal
# with mean $\mu_k$ and covariance $\Sigma_k$, so
#
# $$p(x_n) = \sum_k \pi_k\, \mathcal N(x_n \mid \mu_k, \Sigma_k), \qquad
# \ell = \sum_n \log p(x_n).$$
#
# ## E-step: whose row is it?
#
# Bayes' theorem gives the posterior of $z_n$, the *responsibility* of component $k$ for row $n$,
#
# $$r_{nk} = \frac{\pi_k\, \mathcal N(x_n \mid \mu_k, \Sigma_k)}
#                 {\sum_j \pi_j\, \mathcal N(x_n \mid \mu_j, \Sigma_j)},$$
#
# computed from logarithms, for densities underflow and their logarithms do not.


# %%
def log_normal(x, mu, sigma):
    """log N(x_n | μ_k, Σ_k), [N, K]."""
    away = x[:, None] - mu
    solved = jnp.linalg.solve(sigma, away[..., None])[..., 0]
    return -0.5 * (jnp.sum(away * solved, -1) + jnp.linalg.slogdet(2 * jnp.pi * sigma)[1])


def e_step(x, pi, mu, sigma):
    """Responsibilities [N, K], and ℓ."""
    log_joint = jnp.log(pi) + log_normal(x, mu, sigma)
    log_prob = jax.nn.logsumexp(log_joint, axis=1)
    return jnp.exp(log_joint - log_prob[:, None]), jnp.sum(log_prob)


# %% [markdown]
# ## M-step: shares, means, scatters
#
# With $N_k = \sum_n r_{nk}$, what the M-step maximises is
#
# $$Q = \sum_k N_k \log \pi_k + \sum_k \sum_n r_{nk} \log \mathcal N(x_n \mid \mu_k, \Sigma_k).$$
#
# **Weights.** They must sum to 1, so add a Lagrange multiplier, $Q + \lambda (\sum_k \pi_k - 1)$:
#
# $$\frac{N_k}{\pi_k} + \lambda = 0 \;\Rightarrow\; N_k = -\lambda \pi_k
# \;\Rightarrow\; \lambda = -\sum_k N_k = -N \;\Rightarrow\; \pi_k = \frac{N_k}{N},$$
#
# the sum over $k$ having used both constraints, $\sum_k \pi_k = 1$ and $\sum_k r_{nk} = 1$.
#
# **Means.** $\Sigma_k^{-1} \sum_n r_{nk} (x_n - \mu_k) = 0$, whatever $\Sigma_k$ is, so
# $\mu_k = \frac1{N_k} \sum_n r_{nk}\, x_n$.
#
# **Covariances.** With $S_k = \frac{1}{N_k} \sum_n r_{nk} (x_n - \mu_k)(x_n - \mu_k)^\top$ the
# derivative is $\frac12 N_k (\Sigma_k^{-1} S_k \Sigma_k^{-1} - \Sigma_k^{-1})$, which is 0 at
# $\Sigma_k = S_k$. (Bishop 2006, 9.16–9.22.)


# %%
def m_step(x, r):
    n = r.sum(0)  # N_k
    mu = r.T @ x / n[:, None]
    away = x[:, None] - mu
    sigma = jnp.einsum("nk,nkd,nke->kde", r, away, away) / n[:, None, None]
    return n / len(x), mu, sigma


def q(pi, mu, sigma, r):
    return jnp.sum(r * (jnp.log(pi) + log_normal(x, mu, sigma)))


# %% [markdown]
# Does the derivation hold? Automatic differentiation knows nothing of it. From a start with
# $\pi = (\frac12, \frac12)$, one step, and the gradient of $Q$ where the step ends:

# %%
pi = jnp.array([0.5, 0.5])
mu = jnp.array([[2.0, 55.0], [4.3, 80.0]])
sigma = jnp.array([jnp.diag(jnp.array([0.1, 36.0]))] * 2)
start = pi, mu, sigma

r, _ = e_step(x, *start)
stepped = m_step(x, r)
slope = jax.grad(q, argnums=(0, 1, 2))(*stepped, r)
print("dQ/dpi   ", slope[0], "so lambda =", -slope[0][0].round(6))
print("dQ/dmu    all 0:", jnp.allclose(slope[1], 0, atol=1e-9))
print("dQ/dsigma all 0:", jnp.allclose(slope[2], 0, atol=1e-9))
print("dQ/dpi   ", jax.grad(q)(pi, *stepped[1:], r), "at pi = (1/2, 1/2): no lambda serves both")

# %% [markdown]
# At the step's end $\partial Q/\partial \pi_k$ is 272 for either component: $-\lambda = N$. All
# else is stationary.
#
# ## EM
#
# The two in turn, and `jaxem` beside them:

# %%
theta, trace, steps = start, [], [start]
for _ in range(4):
    r, log_likelihood = e_step(x, *theta)
    theta = m_step(x, r)
    trace.append(float(log_likelihood))
    steps.append(theta)

model = jaxem.Mixture(jaxem.Categorical.from_probs(pi), jaxem.Gaussian.from_moments(mu, sigma))
result = jaxem.fit(model, x, tol=1e-10)
for step, (ours, theirs) in enumerate(zip(trace, result.trace, strict=False)):
    print(f"step {step}: by hand {ours:.8f}, jaxem {theirs:.8f}")
print(f"{result.outcome} after {result.num_steps} steps: {result.log_likelihood:.6f}")

# %%
fitted = result.model
print("pi", fitted.weights.probs)
print("mu", fitted.components.mean.tolist())
print("sigma", *fitted.components.covariance, sep="\n")

# %% [markdown]
# These are the numbers that mclust (model VVV) comes to, −1130.264. A worse start, with the means
# where the data are not, shows more of the way:


# %%
def draw(ax, model, data, title):
    jaxem.plots.mixture(model, data, names=NAMES, ax=ax)
    ax.get_legend().remove()
    ax.set_title(title)
    ax.label_outer()


def mixture(pi, mu, sigma):
    return jaxem.Mixture(jaxem.Categorical.from_probs(pi), jaxem.Gaussian.from_moments(mu, sigma))


# %%
spread = jnp.diag(x.var(0))
theta = pi, jnp.array([[2.0, 80.0], [4.5, 60.0]]), jnp.array([spread, spread])
figure, panels = plt.subplots(1, 5, figsize=(12, 2.8), sharey=True, layout="constrained")
for step in range(14):
    r, log_likelihood = e_step(x, *theta)
    if step in (0, 2, 6, 9, 13):
        ax = panels[(0, 2, 6, 9, 13).index(step)]
        draw(ax, mixture(*theta), x, rf"step {step}, $\ell$ = {log_likelihood:.1f}")
    theta = m_step(x, r)
plt.show()

# %% [markdown]
# ## Responsibilities
#
# As a function of $x$ a responsibility is a smooth step from 0 to 1, and the step is narrow: hardly
# an eruption falls in between. Each is also a derivative, $r_{nk} = \partial \ell / \partial
# \log(\pi_k \mathcal N_{nk})$: that is how `jaxem` gets the posterior of every model.

# %%
eruption, waiting = jnp.meshgrid(jnp.linspace(1.4, 5.3, 120), jnp.linspace(41, 98, 120))
grid = jnp.stack([eruption.ravel(), waiting.ravel()], 1)
r = e_step(grid, *steps[-1])[0][:, 0].reshape(eruption.shape)

figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
colours = LinearSegmentedColormap.from_list("kinds", [ORANGE, "white", BLUE])
shades = ax.contourf(eruption, waiting, r, np.linspace(0, 1, 11), cmap=colours, alpha=0.6)
ax.plot(*x.T, "o", color="black", markersize=2)
ax.set(xlabel=NAMES[0], ylabel=NAMES[1])
figure.colorbar(shades, label="responsibility of the short kind")
plt.show()

# %%
r = fitted.responsibilities(x)
for n in jnp.flatnonzero((r[:, 0] > 0.01) & (r[:, 0] < 0.99)):
    print(f"row {n}: {x[n, 0]:.3f} min, then {x[n, 1]:.0f} min: r = {r[n]}")
log_joint = fitted.weights.log_probs + fitted.components.log_prob(x)
slope = jax.grad(lambda log_joint: jax.nn.logsumexp(log_joint, axis=1).sum())(log_joint)
print("r is the gradient:", jnp.allclose(slope, r))

# %% [markdown]
# ## Shapes of covariance
#
# Fewer parameters, a smaller likelihood. Each family has its own M-step in closed form: a *tied*
# covariance pools the scatters, a *diagonal* one keeps their diagonals, a *spherical* one the mean
# of the diagonal.

# %%
families = jaxem.Gaussian, jaxem.TiedGaussian, jaxem.DiagonalGaussian, jaxem.SphericalGaussian
figure, panels = plt.subplots(1, 4, figsize=(11, 3), sharey=True, layout="constrained")
for ax, family in zip(panels, families, strict=True):
    result = jaxem.fit(kmeans_plus_plus(jax.random.key(0), family, x, 2), x, tol=1e-9)
    draw(ax, result.model, x, family.__name__)
    print(f"{family.__name__:18} l = {result.log_likelihood:12.6f}", end="   ")
    print(f"{result.num_parameters:2} parameters, BIC {result.bic(N):8.2f}")
plt.show()

# %% [markdown]
# The spherical family fails here for want of a scale: minutes of eruption and minutes of waiting
# differ by a factor of ten, and it has to treat them alike.
#
# ## A likelihood without a maximum
#
# Let one component sit on a single row and shrink: its density there grows without bound, the other
# component looks after all other rows, and $\ell \to \infty$. The likelihood of a Gaussian mixture
# *has* no maximum; what one wants of it is a good local one. A prior on the covariances
# makes a maximum, where a component has a size.

# %%
S = jnp.cov(x.T)


def on_a_row(scale):
    """The second component at one row, its covariance scale² S."""
    pi = jnp.array([1 - 1 / N, 1 / N])
    return mixture(pi, jnp.stack([x.mean(0), x[3]]), jnp.stack([S, scale**2 * S]))


pretend = jaxem.Prior(scatter=0.1 * jnp.diag(jnp.diag(S)), scatter_weight=2.0, floor=0.0)
scales = jnp.logspace(-45, 1, 400)
models = jax.vmap(on_a_row)(scales)
bare = jax.vmap(lambda model: model.log_likelihood(x))(models)
penalised = bare + jax.vmap(lambda model: model.log_prior(pretend))(models)

# %%
figure, ax = plt.subplots(figsize=(6.4, 3), layout="constrained")
ax.semilogx(scales, bare, color=BLUE, label=r"$\ell$")
ax.semilogx(scales, penalised, color=ORANGE, linestyle="--", label=r"$\ell$ + log-prior")
ax.axhline(-1130.26, color=GREY, linewidth=0.8)
ax.annotate("the fit above", (1e-20, -1130.26), xytext=(0, 4), textcoords="offset points")
ax.set(xlabel="scale of the component on one row", ylim=(-1350, -1080))
ax.legend(loc="lower center")
plt.show()

# %% [markdown]
# The pole is absurdly narrow, yet EM is drawn to it from nearby, as to any other hill. Three ways
# to say what should happen then:
#
# * a floor of 0: nothing holds the component, and `fit` says that it ended at no number;
# * the default floor, $10^{-6}$ of the smallest variance: a constraint, under which the M-step has
#   a closed form still (eigenvalues below the floor are raised to it), and $\ell$ does not fall.
#   The fit is as useless, but it exists, and restarts will beat it;
# * a prior as pretend data: here two rows of a small scatter, for each component. Shrinking is
#   punished, and EM escapes.

# %%
priors = {"no floor": jaxem.Prior(floor=0.0), "default floor": None, "pretend data": pretend}
for name, prior in priors.items():
    result = jaxem.fit(on_a_row(1e-2), x, prior=prior)
    smallest = jnp.linalg.eigvalsh(result.model.components.covariance[1])[0]
    print(f"{name:13} l = {result.log_likelihood:10.3f}, smallest eigenvalue {smallest:.1e}")
    print(f"{'':13} {result.outcome.partition(';')[0]}")

# %% [markdown]
# ## How many components?
#
# $\ell$ cannot tell, it only grows with $K$; BIC charges $\frac12 \log N$ for each parameter. And
# one start cannot tell either, since EM finds the maximum that its start leads to. `search` fits
# all candidates from many starts, side by side in compiled batches.

# %%
orders = {jaxem.Gaussian: (1, 2, 3), jaxem.TiedGaussian: (2, 3, 4)}
candidates = [Start(kmeans_plus_plus, family, K) for family in orders for K in orders[family]]
found = jaxem.search(jax.random.key(0), x, candidates, restarts=20, criterion="bic")
for i in found.ranking():
    print(f"{found.names[i]:18} BIC {found.scores()[0, i]:8.2f}", end="   ")
    print(f"{found.found()[0, i]:2} of 20 restarts found it")

# %%
jaxem.plots.criterion(found).figure

# %% [markdown]
# Three ellipses of one shape win over two of two shapes: the third takes up what the long eruptions
# differ by from a normal distribution. A criterion ranks models; how many kinds of eruption there
# are, it does not know. And where few restarts found the best, as for three full covariances, there
# may be a better one yet.
#
# ## Rows with gaps
#
# EM is the method for what was not observed, so it does not mind gaps. If of row $n$ only the
# entries $o$ were seen and $m$ are missing, the responsibilities use the density of the seen ones,
# $\mathcal N(x_{no} \mid \mu_{ko}, \Sigma_{koo})$; and the M-step gets what it expects of the rest,
#
# $$\hat x_{nm} = \mu_{km} + \Sigma_{kmo} \Sigma_{koo}^{-1} (x_{no} - \mu_{ko}), \qquad
# \text{with covariance } \Sigma_{kmm} - \Sigma_{kmo} \Sigma_{koo}^{-1} \Sigma_{kom}.$$
#
# Without the latter every covariance would come out too small. Of 30 % of all entries, hidden at
# random, here is what three methods make:

# %%
lost = jax.random.bernoulli(jax.random.key(0), 0.3, x.shape)
gaps = jaxem.Samples.from_nan(jnp.where(lost, jnp.nan, x))
means = jnp.sum(x, 0, where=~lost) / jnp.sum(~lost, 0)
ways = {
    "all data": x,
    "EM with gaps": gaps,
    "complete rows": x[~lost.any(1)],
    "means filled in": jnp.where(lost, means, x),
}
fits = {name: jaxem.fit(fitted, data).model for name, data in ways.items()}
for name, model in fits.items():
    scale = jnp.sqrt(jnp.diagonal(model.components.covariance, axis1=1, axis2=2))
    print(f"{name:16} pi {model.weights.probs[0]:.3f}", end="   ")
    print(f"mu {model.components.mean[0].round(2)}   deviations {scale[0].round(2)}")

# %% [markdown]
# Ticks at the edges are rows of which one entry was seen. To mean imputation the geyser has a third
# kind of eruption, of average length.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
draw(left, fits["EM with gaps"], gaps, "EM with gaps")
draw(right, fits["means filled in"], ways["means filled in"], "means filled in")
plt.show()

# %% [markdown]
# ## In short
#
# * E-step: responsibilities, by Bayes. M-step: shares, weighted means, weighted scatters; the
#   weights by a multiplier, which is minus the number of rows.
# * The family decides the shape of a component, and its M-step; everything else stays the same.
# * The likelihood has poles: a floor bounds them, a prior avoids them, restarts pass them by.
#
# Next: [hidden_markov_models](hidden_markov_models.ipynb), where a row's component depends on that
# of the row before.
