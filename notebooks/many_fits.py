# %% [markdown]
# # Many fits
#
# EM goes where its start leads, so one starts often. How many components there are is not its
# question, so one fits several numbers. How sure an answer is, and whether a test means what it
# says, one learns by fitting data that were drawn anew. All of these are thousands of small fits,
# and `fit_batch` and `search` do them in one compiled call.

# %%
# %matplotlib inline
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxem
from jaxem.initialize import Start, kmeans_plus_plus

jax.config.update("jax_enable_x64", True)
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#888888"

# %% [markdown]
# ## Ten thousand data sets: the bootstrap
#
# The waiting times of Old Faithful, as a mixture of two normal distributions. How far would the
# estimates move with another 272 eruptions? Draw rows with replacement, fit, repeat (Efron 1979).

# %%
waiting = jaxem.datasets.old_faithful()[:, 1:]  # [N, 1]
N = len(waiting)
start = jaxem.Mixture(
    jaxem.Categorical.from_probs([0.5, 0.5]),
    jaxem.Gaussian.from_moments([[55.0], [80.0]], [[[25.0]], [[25.0]]]),
)
fitted = jaxem.fit(start, waiting, tol=1e-12).model

draws = np.random.default_rng(0).integers(N, size=(10_000, N))
resampled = jaxem.Batch(waiting[draws])  # [10000, N, 1]
starts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (10_000, *leaf.shape)), fitted)
began = time.perf_counter()
result = jaxem.fit_batch(starts, resampled)
seconds = time.perf_counter() - began
print(result.converged.sum(), "of", len(result.converged), "fits converged,", end=" ")
print("in less than a minute, the compiler's seconds among them:", seconds < 60)

# %% [markdown]
# Every leaf of the result has a leading axis. Beside the histograms, what one fit says by itself:
# the normal distribution whose standard error is that of the observed information,
# $-\nabla^2 \ell$, inverted.


# %%
def log_likelihood(theta):  # of π₀, the means and the variances
    share, *moments = theta
    mean, variance = jnp.array(moments).reshape(2, 2)
    log_prob = -0.5 * ((waiting - mean) ** 2 / variance + jnp.log(2 * jnp.pi * variance))
    return jnp.sum(
        jnp.logaddexp(jnp.log(share) + log_prob[:, 0], jnp.log1p(-share) + log_prob[:, 1])
    )


weights, components = fitted.weights, fitted.components
theta = jnp.array([weights.probs[0], *components.mean[:, 0], *components.covariance[:, 0, 0]])
information = -jax.hessian(log_likelihood)(theta)
errors = jnp.sqrt(jnp.diag(jnp.linalg.inv(information)))
print("log-likelihood", log_likelihood(theta).round(6), "standard errors", errors.round(6))

# %%
shares, means = result.model.weights.probs[:, 0], result.model.components.mean[:, :, 0]
figure, panels = plt.subplots(1, 3, figsize=(9, 2.4), layout="constrained")
for i, (ax, values) in enumerate(zip(panels, (shares, *means.T), strict=True)):
    low, high = float(theta[i] - 4 * errors[i]), float(theta[i] + 4 * errors[i])
    grid = np.linspace(low, high, 200)
    bell = np.exp(-0.5 * ((grid - theta[i]) / errors[i]) ** 2) / (errors[i] * np.sqrt(2 * np.pi))
    ax.hist(values, 60, range=(low, high), density=True, color="#9ECAE1")
    ax.plot(grid, bell, color=ORANGE)
    ax.set(title=("π₀", "μ₀", "μ₁")[i], yticks=[])
    ax.set_xlabel(f"standard error {errors[i]:.3f}, bootstrap {values.std():.3f}")
plt.show()

# %% [markdown]
# The two agree but for the first mean, of which the bootstrap is a tenth less certain. The formula
# believes that both components are normal; the bootstrap believes the rows alone.
#
# In a plain loop over all fits at once the first would wait for the last. Most end soon and few go
# on for long; here whoever has ended makes room for the next in the queue.

# %%
figure, ax = plt.subplots(figsize=(7, 2.2), layout="constrained")
ax.hist(result.num_steps, 60, color=BLUE)
ax.axvline(float(result.num_steps.mean()), color=ORANGE, label="mean")
ax.set(xlabel="steps until convergence", ylabel="fits", yscale="log")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# Each member is what its own `fit` would make of it. One that goes wrong says so, and changes none
# of the others:

# %%
rates = jnp.array([[10.0, 30.0], [jnp.nan, 30.0], [15.0, 20.0]])
half = jaxem.Categorical(jnp.zeros((3, 2)))
three = jaxem.fit_batch(
    jaxem.Mixture(half, jaxem.Poisson(jnp.log(rates))), jaxem.datasets.earthquakes()
)
for member in range(3):
    print(rates[member], jax.tree.map(lambda leaf, m=member: leaf[m], three).outcome)

# %% [markdown]
# ## Two thousand starts: what the landscape looks like
#
# Two, three or four states for the earthquakes of
# [hidden_markov_models](hidden_markov_models.ipynb), each from 2000 starts all over the place.
# `search` takes candidates: functions `(key, data) -> model`, such as a `Start`, which has a way to
# start, a family and a number of states. It fits all of them from all starts, and ranks them.


# %%
def anywhere(key, family, data, K):
    """A start that looks at no data."""
    rate_key, move_key = jax.random.split(key)
    moves = jax.random.dirichlet(move_key, jnp.ones(K), (K,))
    rate = jax.random.uniform(rate_key, (K,), minval=5.0, maxval=40.0)
    initial, transition = jnp.zeros(K), jnp.log(moves)
    return jaxem.HMM(
        jaxem.Categorical(initial), jaxem.Categorical(transition), family(jnp.log(rate))
    )


quakes = jaxem.datasets.earthquakes()
candidates = [Start(anywhere, jaxem.Poisson, K) for K in (2, 3, 4)]
result = jaxem.search(jax.random.key(4), quakes, candidates, restarts=2000)
for i in result.ranking():
    best, bic = (result.scores(criterion)[0, i] for criterion in ("log_likelihood", "bic"))
    print(f"K = {result.num_components[i]}: log-likelihood {best:.4f}, BIC {bic:.2f}", end=", ")
    print(f"found by {result.found()[0, i]} of 2000 starts")

# %% [markdown]
# `found()` is the diagnosis of restarts: how many came to the best that any of them found. With two
# and three states nearly all do. With four one or two in a thousand do, and a better one may well
# be unknown. The picture has every start as a dot, but for those that BIC puts above 755.

# %%
ax = jaxem.plots.criterion(result)
ax.set_ylim(700, 755)
ax.figure

# %% [markdown]
# Sorted, the 2000 ends with four states are a staircase of local maxima. The value printed in the
# literature, −326.675, is on no stair but between two. The best, −326.2850, takes luck: whoever
# starts ten times reports something else.

# %%
reached = result.log_likelihood[0, 2]
figure, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
ax.plot(np.arange(1, 2001), np.sort(reached)[::-1], color=BLUE, drawstyle="steps-mid")
ax.axhline(-326.675, color=GREY, linestyle="--", label="the literature")
ax.set(xscale="log", xlabel="starts, the best first", ylabel="log-likelihood", ylim=(-328.6, -326))
ax.legend(frameon=False, loc="lower left")
plt.show()

share = result.found()[0, 2] / len(reached)
for n in (10, 100, 1000):
    print(f"{n:5} starts find the best with probability {1 - (1 - share) ** n:.2f}")

# %% [markdown]
# ## Twenty thousand fits for one p-value
#
# Are two Poisson components enough for the earthquakes, as if years were independent? Twice the
# gain in log-likelihood would have a $\chi^2$ distribution with two degrees of freedom, if the
# third component were not on the edge of its range: without it its rate means nothing, and the
# theorem does not hold. So draw 2000 data sets from the model with two, fit two and three to each,
# from five starts, and look (McLachlan 1987).

# %%
two = jaxem.Mixture(jaxem.Categorical.from_probs([0.5, 0.5]), jaxem.Poisson.from_rate([10.0, 30.0]))
two = jaxem.fit(two, quakes).model
keys = jax.random.split(jax.random.key(1), 2000)
drawn = jax.vmap(lambda key: two.sample(key, len(quakes))[0])(keys)  # [2000, 107]
sets = jaxem.Batch(np.concatenate([quakes[None], drawn]))  # the earthquakes come first
orders = [Start(kmeans_plus_plus, jaxem.Poisson, K) for K in (2, 3)]
result = jaxem.search(jax.random.key(2), sets, orders, restarts=5)

ratios = 2 * np.diff(result.scores("log_likelihood"), axis=1)[:, 0]
here, by_chance = ratios[0], np.maximum(ratios[1:], 0)
print(f"log-likelihood ratio {here:.2f};", end=" ")
print(f"p: {np.mean(by_chance >= here):.3f} by simulation, {np.exp(-here / 2):.3f} by chi-squared")

# %%
figure, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
grid = np.linspace(0, 10, 200)
ax.hist(by_chance, 50, range=(0, 10), density=True, color="#9ECAE1", label="simulated")
ax.plot(grid, 0.5 * np.exp(-grid / 2), color=ORANGE, label=r"$\chi^2_2$")
ax.axvline(here, color="black", linestyle="--", label="the earthquakes")
ax.set(xlabel="log-likelihood ratio of three components to two", yscale="log", ylim=(1e-3, 20))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# For most simulated data sets the third component has nothing to add, and $\chi^2_2$ promises too
# much by chance. Two components are not enough; or else years are not independent, as another
# notebook says.
#
# ## How fast
#
# `python -m bench` measures jaxem beside the libraries that do the same work, from the same starts
# and for the same number of steps, after checking that they agree;
# [bench/README.md](../bench/README.md) says how. Its results are files in the repository. A dot is
# how many times as fast as the fastest peer jaxem is; the bar is the goal that was set before.

# %%
groups = "many", "gmm", "hmm", "smoothing", "viterbi", "ctc", "transducer"
results = [json.loads(Path(f"../bench/results/{group}.json").read_text()) for group in groups]
entries = [entry for group in results for entry in group["entries"].values() if entry["ratio"]]
workloads = list(dict.fromkeys(entry["workload"] for entry in entries))[::-1]

figure, ax = plt.subplots(figsize=(8, 8.4), layout="constrained")
ax.axvspan(0.3, 1, color="#EEEEEE")
for entry in entries:
    wide = entry["dtype"] == "float64"
    place = workloads.index(entry["workload"]) + (-0.18 if wide else 0.18)
    colour = ORANGE if entry["met"] is False else BLUE
    ax.plot(entry["ratio"], place, "s" if wide else "o", color=colour)
    if entry["goal"] and entry.get("goal_peer") in (None, entry["fastest_peer"]):
        ax.plot(entry["goal"], place, "|", color="black", markersize=7)
for look, label in (("o", "float32"), ("s", "float64"), ("|", "goal")):
    ax.plot([], [], look, color="black", label=label)
ax.plot([], [], "o", color=ORANGE, label="misses its goal")
ax.set(xscale="log", xlim=(0.3, 80), xlabel="times as fast as the fastest peer")
ax.set(xticks=(0.5, 1, 2, 5, 10, 20, 50), xticklabels=("½", 1, 2, 5, 10, 20, 50))
ax.set(yticks=range(len(workloads)), yticklabels=workloads, ylim=(-0.8, len(workloads) - 0.2))
ax.legend(ncols=4, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
plt.show()

# %% [markdown]
# In the grey jaxem is slower: a chain of few states is two loops of tiny steps, and compiled C++
# is good at those. Many fits in one call gain the most, for the peers loop over them:

# %%
for entry in results[0]["entries"].values():
    ours, theirs = (
        entry["libraries"][name]["milliseconds_a_step"] / 1000
        for name in ("jaxem", entry["fastest_peer"])
    )
    print(f"{entry['workload']:28}{entry['dtype']}  jaxem {ours:6.2f} s", end="   ")
    print(f"{entry['fastest_peer']:20}{theirs:7.2f} s")

# %% [markdown]
# ## In short
#
# * `fit_batch` fits what has a leading axis; every member ends by itself.
# * `search` starts, fits and ranks; `found()` says whether it was often enough.
# * Where a theorem does not hold, or is not known to, draw data and fit them.
