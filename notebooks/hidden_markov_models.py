# %% [markdown]
# # Hidden Markov models
#
# In a mixture every row draws its component anew. In a hidden Markov model the component, now
# called a state, depends on the one before:
#
# $$p(x, z) = \pi_{z_1} \prod_{t=2}^{T} A_{z_{t-1} z_t} \prod_{t=1}^{T} p(x_t \mid z_t).$$
#
# Three problems are to be solved (so Rabiner 1989, and Duda, Hart & Stork 2001):
#
# 1. **evaluation**: how probable are the observations, $p(x) = \sum_z p(x, z)$?
# 2. **decoding**: which states $z$ are behind them?
# 3. **learning**: which parameters make them most probable?
#
# We shall see that they are one recursion, its gradient, and EM.

# %%
# %matplotlib inline
import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.nn import logsumexp

import jaxem

jax.config.update("jax_enable_x64", True)
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#888888"

# %% [markdown]
# ## Evaluation: a sum over paths
#
# Russell & Norvig's guard sits underground. Each morning the director comes in with an umbrella, or
# without: the weather is hidden. It stays as it is with probability .7; with rain ($k = 0$) the
# umbrella comes with probability .9, without rain ($k = 1$) with .2. Five days: umbrella, umbrella,
# none, umbrella, umbrella.
#
# All that inference needs are three arrays of **log-potentials**, whatever they came from.

# %%
initial = jnp.log(jnp.array([0.5, 0.5]))  # log π_k
transition = jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]]))  # log A_ij
yes, no = [0.9, 0.2], [0.1, 0.8]
emission = jnp.log(jnp.array([yes, yes, no, yes, yes]))  # log p(x_t | z_t = k), [T, K]
T, K = emission.shape


def log_joint(z):
    moves = sum(transition[i, j] for i, j in itertools.pairwise(z))
    return initial[z[0]] + moves + sum(emission[t, k] for t, k in enumerate(z))


paths = list(itertools.product(range(K), repeat=T))
by_enumeration = logsumexp(jnp.array([log_joint(z) for z in paths]))
print(f"{len(paths)} paths, log p(x) = {by_enumeration:.10f}")

# %% [markdown]
# A path more for each way to go on: $K^T$ of them. But a path's past matters to its future through
# its last state alone, so what all paths to state $k$ weigh together can be carried along,
# $\alpha_t(k) = \log p(x_1, \dots, x_t, z_t = k)$, with $K^2$ additions a step. This is the
# **forward recursion**, and it is two lines:


# %%
def log_normalizer(initial, transition, emission):
    alpha = initial + emission[0]
    for row in emission[1:]:
        alpha = logsumexp(alpha[:, None] + transition, axis=0) + row
    return logsumexp(alpha)


potentials = jaxem.chain.Chain(initial, transition, emission)
print(f"two lines {log_normalizer(initial, transition, emission):.10f}")
print(f"jaxem     {jaxem.chain.log_normalizer(potentials):.10f}")

# %% [markdown]
# ## Decoding: forward–backward is a gradient
#
# How probable is rain on day $t$, given all five? Textbooks answer with a second recursion that
# runs backwards, and with products of the two. There is a shorter way. Write $\phi$ for a
# log-potential; the weight of a path is $e^{\text{sum of the } \phi \text{ it uses}}$, and so
#
# $$\frac{\partial}{\partial \phi} \log Z
#   = \frac{1}{Z} \sum_z e^{\dots} \, \#\{\text{uses of } \phi \text{ by } z\}
#   = \mathbb E[\text{uses of } \phi \mid x].$$
#
# **The posterior is the gradient of the log-normaliser** with respect to the log-potentials. And
# reverse-mode differentiation of the forward recursion *is* the backward recursion (Eisner 2016);
# nobody needs to write it.

# %%
pi_counts, moves, gamma = jax.grad(log_normalizer, (0, 1, 2))(initial, transition, emission)
print("p(z_t = rain | x)    ", gamma[:, 0].round(6))

posterior = np.exp([log_joint(z) - by_enumeration for z in paths])
rain = [sum(posterior[[z[t] == 0 for z in paths]]) for t in range(T)]
print("the same by all paths", np.round(rain, 6))

_, expected = jaxem.chain.posterior(potentials)  # a Chain again: counts where potentials were
print("the same by jaxem    ", expected.emission[:, 0].round(6))

# %% [markdown]
# The gradient in the transition matrix, one matrix for all steps, is already the sum over time,
# $\Xi_{ij} = \sum_t p(z_{t-1} = i, z_t = j \mid x)$: the expected number of moves from $i$ to $j$,
# which is what learning will need.

# %%
print(moves.round(4), "in all", moves.sum().round(12), "moves")

# %% [markdown]
# Give each step a matrix of its own, and every arc of the trellis has its own probability. Circles
# are as large as $\gamma_t(k)$, arcs as thick as $\xi_t(i, j)$.

# %%
steps = jnp.broadcast_to(transition, (T - 1, K, K))
xi = jaxem.chain.posterior(jaxem.chain.Chain(initial, steps, emission))[1].transition
path = jaxem.chain.viterbi(potentials)[1]

figure, ax = plt.subplots(figsize=(7, 2.2), layout="constrained")
for t, i, j in np.ndindex(T - 1, K, K):
    on_best = path[t] == i and path[t + 1] == j
    look = {"color": ORANGE if on_best else GREY, "linewidth": 14 * float(xi[t, i, j])}
    ax.plot([t + 1, t + 2], [-i, -j], solid_capstyle="butt", zorder=1, **look)
for k in range(K):
    ax.scatter(np.arange(T) + 1, T * [-k], s=1500 * gamma[:, k], color=BLUE, zorder=2)
ax.set(xlim=(0.6, T + 0.4), ylim=(-1.5, 0.5), yticks=(0, -1), yticklabels=("rain", "none"))
ax.set(xticks=range(1, T + 1), xlabel="day (orange: the most probable path)")
plt.show()

# %% [markdown]
# The **most probable path** (Viterbi 1967) is the same recursion with a maximum in place of the
# sum. A maximum has a gradient as well: 1 for what was chosen, 0 for the rest. So the path, too, is
# a gradient.


# %%
def best(initial, transition, emission):
    score = initial + emission[0]
    for row in emission[1:]:
        score = jnp.max(score[:, None] + transition, axis=0) + row
    return jnp.max(score)


score, chosen = jax.value_and_grad(best, 2)(initial, transition, emission)
print(f"two lines: log p(x, z) = {score:.4f}, z =", chosen.argmax(1))
score, path = jaxem.chain.viterbi(potentials)
print(f"jaxem:     log p(x, z) = {score:.4f}, z =", path)

# %% [markdown]
# ## The dishonest casino
#
# Durbin et al. (1998) let a casino change to a loaded die now and then (.05), and back (.10); the
# loaded one shows a six half of the time. Here are 300 rolls, and what an `HMM` that knows the
# casino thinks of each. Grey is the truth: the loaded die was in use.

# %%
rolls, loaded, casino = jaxem.datasets.dishonest_casino(jax.random.key(1), 300)
gamma, path = casino.smooth(rolls), casino.viterbi(rolls)[1]

figure, ax = plt.subplots(figsize=(9, 2.6), layout="constrained")
t = np.arange(len(rolls))
ax.fill_between(t, 0, loaded, step="mid", color="#DDDDDD", label="loaded")
ax.step(t, gamma[:, 1], where="mid", color=BLUE, label="p(loaded | all rolls)")
ax.plot(t, np.where(path == 1, 1.06, np.nan), color=ORANGE, linewidth=4, label="best path")
ax.plot(t[rolls == 5], np.full(sum(rolls == 5), -0.06), "|", color="black", label="a six")
ax.set(xlim=(0, len(rolls)), xlabel="roll", ylim=(-0.12, 1.12))
ax.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
plt.show()

# %% [markdown]
# Two ways to decode, which need not agree: the posterior picks the most probable state of each step
# and makes the fewest errors on average; Viterbi picks the most probable path as a whole.
# Evaluation answers another question: was it a casino like this one, or an honest one?

# %%
print(f"right: posterior {np.mean((gamma[:, 1] > 0.5) == loaded):.1%}, ", end="")
print(f"best path {np.mean(path == loaded):.1%}")
log_odds = casino.log_likelihood(rolls) - len(rolls) * np.log(1 / 6)
print(f"log p(rolls | casino) - log p(rolls | honest casino) = {log_odds:.1f}")

# %% [markdown]
# ## Learning: one multiplier per row
#
# EM (here also called Baum–Welch, 1970) takes the expected counts of the E-step for the truth. What
# depends on $A$ in $Q$ is $\sum_{ij} \Xi_{ij} \log A_{ij}$, and *every row* of $A$ has to sum to 1.
# So every row has its own multiplier $\kappa_i$:
#
# $$\frac{\partial}{\partial A_{ij}} \Big[ \sum_{ij} \Xi_{ij} \log A_{ij} + \sum_i \kappa_i
# \Big(\sum_j A_{ij} - 1\Big) \Big] = \frac{\Xi_{ij}}{A_{ij}} + \kappa_i = 0
# \quad\Longrightarrow\quad
# A_{ij} = \frac{\Xi_{ij}}{\sum_j \Xi_{ij}}, \quad \kappa_i = -\sum_j \Xi_{ij}.$$
#
# The multiplier of a row is minus the expected number of moves out of its state, those back to
# itself included. One step on 30,000 rolls from a start that hardly knows which die is which, and
# the gradient of $Q$ at the new $A$: constant in each row, and what it should be.

# %%
many_rolls, _, _ = jaxem.datasets.dishonest_casino(jax.random.key(2), 30_000)
probs = jaxem.Categorical.from_probs
start = jaxem.HMM(
    probs([0.5, 0.5]),
    probs([[0.7, 0.3], [0.3, 0.7]]),
    probs([[0.18] * 5 + [0.10], [0.14] * 5 + [0.30]]),
)
counts = start.transition_counts(many_rolls)
A = counts / counts.sum(1, keepdims=True)
print(jax.grad(lambda A: jnp.sum(counts * jnp.log(A)))(A).round(6))
print("expected exits:", counts.sum(1).round(6), "in all", counts.sum().round(6))

# %% [markdown]
# The same holds for the rows of the dice, with the expected rolls of each. `fit` repeats both steps
# until $\ell$ is at rest, and finds the casino.

# %%
result = jaxem.fit(start, many_rolls)
print(result.outcome, "in", result.num_steps, "steps; A =", result.model.transition.probs.round(3))

figure, panels = plt.subplots(1, 2, figsize=(8, 2.4), sharey=True, layout="constrained")
for k, ax in enumerate(panels):
    for place, (label, model) in enumerate(
        {"start": start, "fitted": result.model, "truth": casino}.items()
    ):
        shown = {"color": ("#CCCCCC", BLUE, ORANGE)[place], "label": label}
        ax.bar(np.arange(1, 7) + 0.27 * (place - 1), model.emission.probs[k], 0.25, **shown)
    ax.set(title=("state 0: fair", "state 1: loaded")[k], xlabel="face")
panels[0].legend(frameon=False)
panels[0].set_ylabel("probability")
plt.show()

# %% [markdown]
# ## A century of earthquakes
#
# The counts of great earthquakes (magnitude 7 or more) of the years 1900 to 2006, which Zucchini &
# MacDonald (2009) follow through their book. The variance of a Poisson distribution is its mean;
# that of these is larger, and neighbouring years are alike.

# %%
quakes = jaxem.datasets.earthquakes()
print(f"mean {quakes.mean():.2f}, variance {quakes.var(ddof=1):.2f}", end=", ")
print(f"correlation of a year with the next {np.corrcoef(quakes[1:], quakes[:-1])[0, 1]:.2f}")

# %% [markdown]
# Two states, each a Poisson distribution, from the book's start $\lambda = (10, 30)$. The negative
# log-likelihoods are those that its table of EM prints: 413.27542, 343.76023, 343.13618, …,
# 341.87871 after 30 steps.

# %%
start = jaxem.HMM(
    probs([0.5, 0.5]), probs([[0.9, 0.1], [0.1, 0.9]]), jaxem.Poisson.from_rate([10.0, 30.0])
)
result = jaxem.fit(start, quakes, tol=1e-12)
model = result.model
for step in (0, 1, 2, 30, 50):
    print(f"step {step:2}: -log-likelihood {-result.trace[step]:.5f}")
print("rates", model.emission.rate.round(4), "start", model.initial.probs.round(4))

# %%
ax = jaxem.plots.hmm(model, quakes, names=["earthquakes"])
ax.set_xlabel("years since 1900")
ax.figure

# %% [markdown]
# How sure is that? `information` takes the information in the complete data, and subtracts what
# the unknown states cost (Louis 1982). The last column is the share of a variance that is owed to
# not having seen the states. The initial distribution ends on the edge of its range, where a
# standard error means nothing.

# %%
print(jaxem.information(model, quakes))

# %% [markdown]
# How many states? With $p$ parameters BIC is $-2\ell + p \log T$. The initial distribution is free
# here and counts as $K - 1$ parameters; then two states win narrowly. Had we not counted it, three
# would: state the convention.

# %%
three = jaxem.HMM(
    probs([1 / 3] * 3),
    probs([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]),
    jaxem.Poisson.from_rate([10.0, 20.0, 30.0]),
)
third = jaxem.fit(three, quakes)
for fitted in (result, third):
    K, p = fitted.model.num_states, fitted.model.num_parameters
    bic = -2 * fitted.log_likelihood + p * np.log(len(quakes))
    print(f"K = {K}: -log-likelihood {-fitted.log_likelihood:.4f}, BIC {bic:.2f}", end=", ")
    print(f"without the start {bic - (K - 1) * np.log(len(quakes)):.2f}")

# %%
ax = jaxem.plots.hmm(third.model, quakes, names=["earthquakes"])
ax.set_xlabel("years since 1900")
ax.figure

# %%
figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for ax, fitted in zip(panels, (model, third.model), strict=True):
    names = [f"{rate:.1f}" for rate in fitted.emission.rate]
    jaxem.plots.transitions(fitted, names=names, ax=ax)
plt.show()

# %% [markdown]
# ## Forecasting
#
# After the last year the states go on by $A$ alone, and the forecast is a mixture of the Poisson
# distributions, which forgets where it began: soon it is that of the stationary distribution
# $\delta = \delta A$.

# %%
forecast = third.model.forecast(quakes, steps=30)
stationary = jnp.exp(jaxem.Stationary().log_probs(third.model.transition))
counts = jnp.arange(50)
pmf = jnp.exp(third.model.emission.log_prob(counts))  # [50, K]

figure, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
for year, colour in ((0, ORANGE), (4, "#E69F00"), (29, "#56B4E9")):
    ax.plot(counts, pmf @ forecast.states[year], color=colour, label=f"{2007 + year}")
ax.plot(counts, pmf @ stationary, "--", color="black", label="in the long run")
ax.set(xlabel="earthquakes", ylabel="probability")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## States that are mixtures
#
# A family of distributions serves mixtures and hidden Markov models alike, and `MixtureFamily`
# makes a family of mixtures out of any other: Gaussian mixtures as emissions, as speech recognisers
# had them for decades. Here one Gaussian is too little, for a signal of two levels has glitches.

# %%
rng = np.random.default_rng(0)
state = np.cumsum(rng.random(500) < 0.02) % 2
glitch = rng.random(500) < 0.08
y = (2.0 * state + np.where(glitch, 3.0, 0.4) * rng.normal(size=500))[:, None]

chain = probs([0.5, 0.5]), probs([[0.9, 0.1], [0.1, 0.9]])
ones = np.ones((2, 1, 1))
plain = jaxem.HMM(*chain, jaxem.Gaussian.from_moments([[0.0], [2.0]], ones))
# Two members with two components each, a narrow one and a wide one: [K, M] weights, K·M Gaussians.
narrow_and_wide = jaxem.Gaussian.from_moments(
    [[0.0], [0.0], [2.0], [2.0]], np.concatenate([ones * [[[0.2]], [[9.0]]]] * 2)
)
mixed = jaxem.HMM(*chain, jaxem.MixtureFamily(probs([[0.9, 0.1]] * 2), narrow_and_wide))

# %%
figure, panels = plt.subplots(2, 1, figsize=(9, 4.6), layout="constrained")
models = {"one Gaussian a state": plain, "two Gaussians a state": mixed}
for ax, (title, begin) in zip(panels, models.items(), strict=True):
    fitted = jaxem.fit(begin, y)
    right = np.mean(fitted.model.viterbi(y)[1] == state)
    jaxem.plots.hmm(fitted.model, y, names=[title], ax=ax)
    bic = -2 * fitted.log_likelihood + fitted.model.num_parameters * np.log(len(y))
    print(f"{title}: log-likelihood {fitted.log_likelihood:.1f}, BIC {bic:.1f}, right {right:.1%}")
plt.show()

# %% [markdown]
# The single Gaussians take a glitch for a visit to the other level. The mixtures leave glitches to
# their wide components, and the states to the levels. Their M-step is the same share of counts once
# more: the responsibility of a state is divided among its components (Bilmes 1998).
#
# ## In short
#
# * One recursion evaluates; its gradient decodes; with the gradient's counts, EM learns.
# * Every simplex has a multiplier of its own, minus the expected count of its choices.
# * $\ell$ and its second derivatives say how many states, and how sure.
#
# [checking_m_steps](checking_m_steps.ipynb) puts all this to the test, and
# [ctc_and_transducer](ctc_and_transducer.ipynb) takes the same recursion to speech.
