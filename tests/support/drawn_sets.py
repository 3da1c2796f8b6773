"""S1-S4 of random images, for tests that need no corpus."""

import numpy as np

from core.data.splits import SET_NAMES, SampleSet


def drawn_sets(n=12):
    """S1-S4 of n random faces and voices each, six classes, paired by clip."""
    rng = np.random.default_rng(0)
    labels, names = np.arange(n) % 6, np.array(["a"] * n)

    def draw(columns):
        return rng.uniform(-1, 1, (n, columns, 28)).astype(np.float32)

    return {
        k: SampleSet(draw(28), labels, names, draw(112), labels, names, paired=True)
        for k in SET_NAMES
    }
