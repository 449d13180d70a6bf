"""The picture of a transducer's grid shows the topology that it is told of."""

import jax
import numpy as np
import pytest

from jaxem import plots
from jaxem.transducer.grid import GridTopology

pytest.importorskip("matplotlib")


def drawn(topology: GridTopology) -> tuple[np.ndarray, np.ndarray]:
    """The image of two labels in six frames, [U + 1, T], and the best path's frames."""
    logits = jax.random.normal(jax.random.key(0), (6, 3, 4))
    ax = plots.transducer(logits, np.array([1, 2]), topology=topology)
    return np.asarray(ax.images[0].get_array()), np.asarray(ax.lines[-1].get_xdata())


def test_in_the_modified_topology_each_frame_is_left_once() -> None:
    image, frames = drawn("modified")
    np.testing.assert_allclose(image.sum(0), 1, atol=1e-5)
    assert np.all(frames[1:-1] % 1 == 0.5)  # a label leads from one frame to the next


def test_in_the_regular_topology_each_label_is_one_node_more() -> None:
    image, frames = drawn("regular")
    np.testing.assert_allclose(image.sum(), 6 + 2, atol=1e-5)
    assert np.all(frames % 1 == 0)
