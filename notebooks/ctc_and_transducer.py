# %% [markdown]
# # CTC and the transducer
#
# A recogniser reads frames and says labels, fewer of them; nobody told it which frames belong to
# which label. That alignment is a latent variable, summed over as a hidden Markov model sums over
# its paths: by **CTC** (Graves et al. 2006) and by the **RNN-transducer** (Graves 2012). We shall
# get to both from the forward recursion, and then train them on handwriting.

# %%
# %matplotlib inline
import sys
from functools import partial
from math import comb, log

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxem
from jaxem import ctc, transducer
from jaxem.datasets import digit_strings

sys.path.append("../examples")  # where there is a network of three convolutions
import digits_ctc
import digits_transducer
from recogniser import NUM_SYMBOLS, digit_grammar, encode, in_digits, label_error, spellings, train

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#888888"

# %% [markdown]
# ## From the hidden Markov model to CTC
#
# A network says for each frame how probable each of $V$ symbols is; one of them is the **blank**,
# "nothing new". A path has one symbol a frame, and reads as what is left when repetitions are
# merged and then blanks are dropped: `·bb·e·e` reads *bee*, and so does `b·eee·e`, but `b·eeee` is
# *be*. The probability of *bee* is the sum over all paths that read so:
#
# $$p(y \mid x) = \sum_{z \text{ reads } y} \; \prod_{t=1}^{T} p(z_t \mid x).$$
#
# These are the paths through a chain of $2L + 1$ states, blank, $y_1$, blank, $y_2$, …, blank, in
# which one may stay, go on, or leave out a blank between *different* labels. Its transitions have
# no probabilities; they are allowed, $\log 1 = 0$, or not, $-\infty$.


# %%
def chain_of(log_probs, labels, blank=0):
    """CTC as a chain of log-potentials: of `log_probs` [T, V] and `labels` [L]."""
    symbols = np.full(2 * len(labels) + 1, blank)
    symbols[1::2] = labels
    i, j = np.indices((len(symbols), len(symbols)))
    skips = (j == i + 2) & (symbols[j] != blank) & (symbols[j] != symbols[i])
    transition = jnp.where((j == i) | (j == i + 1) | skips, 0, -jnp.inf)
    initial = jnp.where(np.arange(len(symbols)) < 2, 0, -jnp.inf)
    emission = log_probs[:, symbols]
    emission = emission.at[-1, :-2].set(-jnp.inf)  # ends with the last label, or a blank
    return jaxem.chain.Chain(initial, transition, emission)


# %% [markdown]
# The forward recursion of a hidden Markov model, as it is, computes CTC's loss. Graves' own test,
# with the blank last, should come to 3.34211; and `jaxem.ctc`, which does the same with less work
# and right in float32 at any length, agrees.

# %%
graves = jnp.log(jnp.array([
    [0.633766, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
    [0.111121, 0.588392, 0.278779, 0.0055756, 0.00569609, 0.010436],
    [0.0357786, 0.633813, 0.321418, 0.00249248, 0.00272882, 0.0037688],
    [0.0663296, 0.643849, 0.280111, 0.00283995, 0.0035545, 0.00331533],
    [0.458235, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107],
]))  # fmt: skip
y = jnp.array([0, 1, 2, 1, 0])
print(f"the chain {-jaxem.chain.log_normalizer(chain_of(graves, y, blank=5)):.5f}")
print(f"jaxem.ctc {ctc.loss(graves[None], y[None], blank=5)[0]:.5f}")

# %% [markdown]
# How many paths read alike? With equal probabilities, $V^{-T}$ each, the loss counts them. With $r$
# labels like the one before there are $\binom{T + L - r}{T - L - r}$: a repetition needs a blank.

# %%
for T, y in ((5, [1, 2]), (5, [1, 1]), (6, [1, 2, 3]), (6, [1, 1, 1])):
    loss = ctc.loss(jnp.zeros((1, T, 4)), jnp.array([y]))[0]
    repeated = sum(a == b for a, b in zip(y, y[1:], strict=False))
    number = comb(T + len(y) - repeated, T - len(y) - repeated)
    print(f"{T:2} frames, labels {y}: {np.exp(T * log(4) - float(loss)):.1f} paths, {number}")

# %% [markdown]
# ## The posterior, and what a network learns from it
#
# As ever the posterior is a gradient: of $\log p(y \mid x)$ with respect to the log-potentials. As
# a picture, for fourteen frames of noise that are *said* to read *bee*: the darker, the more of the
# probability passes there. Between the two e's no path avoids the blank.

# %%
noise = 1.5 * jax.random.normal(jax.random.key(1), (14, 3))
bee = jnp.array([1, 2, 2])
jaxem.plots.ctc(noise, bee, names=["·", "b", "e"]).figure

# %% [markdown]
# Through the softmax the gradient of the loss becomes **softmax − posterior**: what the network
# expects, less what it ought to have expected given the labels. It is the E-step that trains
# the network.

# %%
softmax = jax.nn.softmax(noise)
states = ctc.posterior(noise[None], bee[None]).states[0]  # [T, 2L + 1]
posterior = states @ jax.nn.one_hot(jnp.array([0, 1, 0, 2, 0, 2, 0]), 3)  # of each symbol, [T, V]
gradient = jax.grad(lambda logits: ctc.loss(logits[None], bee[None])[0])(noise)
print(f"largest difference {jnp.abs(gradient - (softmax - posterior)).max():.0e}")

figure, panels = plt.subplots(1, 3, figsize=(9, 1.6), sharey=True, layout="constrained")
titles = "softmax", "posterior", "gradient: blue wants more"
for ax, title, shown in zip(panels, titles, (softmax, posterior, gradient), strict=True):
    look = ("RdBu_r", -1, 1) if title.startswith("gradient") else ("Greys", 0, 1)
    ax.imshow(shown.T, cmap=look[0], vmin=look[1], vmax=look[2], aspect="auto")
    ax.set(title=title, xlabel="frame", yticks=range(3), yticklabels=["·", "b", "e"])
plt.show()

# %% [markdown]
# ## From CTC to the transducer
#
# In CTC frames know nothing of each other: what was said before does not change what is probable
# next. The transducer lets a second network, the predictor, see the labels so far. So the network
# speaks at every **node** of a grid, $T$ frames by $U + 1$ numbers of labels said: a blank moves on
# to the next frame, the next label moves up.
#
# $$\alpha(t, u) = \log\big( e^{\alpha(t-1, u) + \log p(\text{blank} \mid t-1, u)}
#   + e^{\alpha(t, u-1) + \log p(y_u \mid t, u-1)} \big).$$
#
# Of warp-transducer's test, two frames and two labels, the loss is known to be 4.495667:


# %%
def log_normalizer(logits, labels):
    log_probs = jax.nn.log_softmax(logits)  # [T, U + 1, V]
    T, U = logits.shape[0], len(labels)
    alpha = {(0, 0): jnp.zeros(())}
    for t, u in [(t, u) for t in range(T) for u in range(U + 1) if t or u]:
        blank = alpha[t - 1, u] + log_probs[t - 1, u, 0] if t else -jnp.inf
        label = alpha[t, u - 1] + log_probs[t, u - 1, labels[u - 1]] if u else -jnp.inf
        alpha[t, u] = jnp.logaddexp(blank, label)
    return alpha[T - 1, U] + log_probs[-1, -1, 0]  # and a blank at the end


logits = jnp.array([
    [[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1], [0.1, 0.1, 0.2, 0.8, 0.1]],
    [[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.2, 0.1, 0.1], [0.7, 0.1, 0.2, 0.1, 0.1]],
])  # fmt: skip
y = jnp.array([1, 2])
print(f"by hand          {-log_normalizer(logits, y):.6f}")
print(f"jaxem.transducer {transducer.loss(logits[None], y[None])[0]:.6f}")
loss = transducer.loss(jnp.zeros((1, 10, 3, 4)), y[None])[0]
print(f"paths, T = 10, U = 2: {np.exp(12 * log(4) - float(loss)):.1f}, {comb(11, 2)}")

# %%
grid = 1.5 * jax.random.normal(jax.random.key(2), (14, 4, 3))
jaxem.plots.transducer(grid, bee, names=["·", "b", "e"]).figure

# %% [markdown]
# ## Handwriting
#
# `digit_strings` makes strings of scikit-learn's images of digits. A frame is a column of 8 pixels.
# The network is told what a string says, not where. It is three convolutions, and trained for
# some seconds.

# %%
keys = jax.random.split(jax.random.key(0), 6)
strings = digit_strings(keys[0], 2048, max_length=6)
params = train(digits_ctc.init(keys[1]), digits_ctc.loss, strings, keys[2], steps=600)

grammar = digit_grammar(keys[3])  # in the strings to be read only some digits follow each other
held_out = digit_strings(keys[4], 300, max_length=6, transition=grammar, held_out=True)
logits = jax.jit(digits_ctc.logits_of)(params, held_out.frames)
greedy = ctc.greedy(logits, held_out.num_frames)
print(
    f"label error on images never seen: {label_error(greedy.labels, greedy.lengths, held_out):.1%}"
)

# %% [markdown]
# Above a held-out string, below it what the network says of each frame, and the posterior once it
# is told the labels. Nobody asked for it, but most frames are blank, and a digit is a spike.

# %%
names = ["·", *"0123456789"]
one = int(jnp.argmax(held_out.num_labels))
T, L = int(held_out.num_frames[one]), int(held_out.num_labels[one])
string, said = held_out.frames[one, :T], held_out.labels[one, :L]

figure, panels = plt.subplots(
    3, 1, figsize=(9, 7), sharex=True, height_ratios=(1, 2, 3), layout="constrained"
)
panels[0].imshow(string.T, cmap="Greys", aspect="auto")
panels[0].set(yticks=[], title=in_digits(said))
panels[1].imshow(jax.nn.softmax(logits[one, :T]).T, cmap="Greys", aspect="auto")
panels[1].set(yticks=range(NUM_SYMBOLS), yticklabels=names, ylabel="symbol")
jaxem.plots.ctc(logits[one, :T], said, names=names, ax=panels[2])
plt.show()

# %% [markdown]
# ## Decoding
#
# `greedy` takes the best symbol of every frame: the best *path*. But a labelling is a sum of paths.
# Two frames, each blank with probability .6 and *a* with .4: the best path is all blank (.36), the
# best labelling is *a* (.24 + .24 + .16 = .64).

# %%
probs = jnp.array([[0.6, 0.4], [0.6, 0.4]])
labels, log_prob = ctc.prefix_search(jnp.log(probs))  # exact, for small problems
print("greedy", ctc.greedy(jnp.log(probs)[None]).labels[0], "- best labelling", labels, end=" ")
print(f"with probability {np.exp(log_prob):.2f}")

# %% [markdown]
# `beam_search` adds paths up prefix by prefix. And it takes a language model along: hypotheses are
# ranked by $\log p(y \mid x) + \alpha \log p_{\text{LM}}(y) + \beta\, |y|$ (Hannun et al. 2014).
# Ours is a bigram that has read 2000 other strings, and seen no image.

# %%
texts = spellings(digit_strings(keys[5], 2000, transition=grammar))
bigram = ctc.NGram.estimate(texts, NUM_SYMBOLS, order=2)

search = partial(ctc.beam_search, logits, held_out.num_frames, width=8)
beam, guided = search(), search(language_model=bigram, alpha=0.8, beta=1.0)
found = {"greedy": greedy} | {
    name: jax.tree.map(lambda part: part[:, 0], all_of)  # the first of each beam
    for name, all_of in {"beam of 8": beam, "beam and language model": guided}.items()
}
for name, best in found.items():
    print(f"{name:24}{label_error(best.labels, best.lengths, held_out):6.1%}")

# %% [markdown]
# The first hypotheses of both beams for the string in the picture. Where the network hesitates, the
# language model decides, for it knows what follows what.

# %%
print("reads", in_digits(said))
print("alone               log p    with the language model   score")
for n in range(3):
    alone, with_model = in_digits(beam.labels[one, n]), in_digits(guided.labels[one, n])
    print(f"{alone:18}{beam.log_prob[one, n]:7.2f}", end="    ")
    print(f"{with_model:24}{guided.score[one, n]:7.2f}")

# %% [markdown]
# ## A transducer has its language model inside
#
# The transducer's predictor sees the last two digits. Trained on strings that follow the grammar,
# it learns which digits follow each other by itself. Its encoder may begin where that of CTC ended,
# as is often done; then 200 steps suffice. A digit is eight frames wide, so one label a frame is
# enough; in this *modified* topology a label leads to the next frame, as a blank does.

# %%
begin = digits_transducer.init(keys[2]) | {name: params[name] for name in ("encoder", "output")}
strings = digit_strings(keys[0], 2048, max_length=6, transition=grammar)

trained = train(begin, digits_transducer.loss, strings, keys[3], steps=200)

# %%
networks = {
    "predict": lambda state, token: digits_transducer.predict(trained, state, token),
    "join": lambda frame, prediction: digits_transducer.join(trained, frame, prediction),
    "start": jnp.int32(0),
    "topology": "modified",
}
frames = jax.jit(encode)(trained["encoder"], held_out.frames)
search = transducer.beam_search(**networks, width=4, max_length=12)
best = jax.jit(search.run)(frames, held_out.num_frames)
error = label_error(best.labels[:, 0], best.lengths[:, 0], held_out)
print(f"label error, transducer with a beam of 4: {error:.1%}")

# %%
grid = digits_transducer.logits_of(trained, jax.tree.map(lambda x: x[one : one + 1], held_out))
T = int(held_out.num_frames[one])
jaxem.plots.transducer(grid[0, :T, : L + 1], said, names=names, topology="modified").figure

# %% [markdown]
# ## Streaming
#
# A `beam_search` need not see the end. `step` takes a frame, and the beam holds what is found so
# far; after the last frame it holds what `run` finds in all frames at once. (The encoder looks six
# frames ahead, so in life each digit would be that much later.)

# %%
step, finalize = jax.jit(search.step), jax.jit(search.finalize)
beam, heard = search.init(1), [""]
for t in range(T):
    beam = step(beam, frames[one : one + 1, t])
    now = in_digits(finalize(beam).labels[0, 0])
    if now != heard[-1]:
        heard.append(now)
        print(f"frame {t:2}: {now}")
print("as all at once:", now == in_digits(best.labels[one, 0]))

# %% [markdown]
# ## In short
#
# * CTC is a chain with allowed and forbidden moves, and the transducer a grid; the forward
#   recursion of hidden Markov models does for both.
# * The gradient of the loss is softmax − posterior: to learn is to do an E-step, and move.
# * CTC takes a language model along when it decodes; a transducer has one inside.
#
# [many_fits](many_fits.ipynb) goes back to EM, ten thousand times over.
