"""On an NVIDIA card a training step (§3) as one CUDA graph: recorded once and then replayed, so that no kernel waits for its launch.

The networks are small enough that a card would spend most of a step waiting for Python. What is replayed is `gan.step` itself, with its
random numbers; where it cannot be recorded (a CPU, Adagrad, whose counters torch keeps outside the card) the plain step is taken.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from core.config import GanSettings
from core.models import gan
from core.models.gan import R1_INTERVAL, GanState, StepFunction

WARM_UP_STEPS = (
    R1_INTERVAL + 3
)  # plain steps before recording: libraries choose their kernels, optimisers make their moments


def is_capturable(state: GanState, g: GanSettings) -> bool:
    """Whether steps of this training may be recorded."""
    return next(state.G.parameters()).is_cuda and g.optimiser == "adam" and g.d_norm != "spectral"


class _CapturedStep:
    """One kind of step, with or without D's penalty, and the memory that it reads and writes."""

    def __init__(self, state: GanState, g: GanSettings, batch: tuple[Tensor, ...]):
        self.inputs = tuple(t.clone() for t in batch)
        self.graph = torch.cuda.CUDAGraph()
        for generator in (
            [state.generator] if isinstance(state.generator, torch.Generator) else state.generator
        ):
            self.graph.register_generator_state(generator)
        torch.cuda.synchronize()
        with torch.cuda.graph(self.graph):
            self.values = gan.step(state, g, *self.inputs)

    def __call__(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        for mine, its in zip(self.inputs, batch, strict=True):
            mine.copy_(its)
        self.graph.replay()
        return {k: v.clone() for k, v in self.values.items()}


def new_step_function() -> StepFunction:
    """What takes the steps of one training, for `gan.train` or a stack: WARM plain ones, then recorded ones, one recording for each kind.

    A failure to record is told on stderr, and plain steps go on; lack of memory is raised as ever.
    """
    recorded: dict[bool, _CapturedStep] = {}
    plain = [
        0,
        WARM_UP_STEPS,
    ]  # steps taken, and how many are to be; the second grows without bound once a recording has failed

    def take(state: GanState, g: GanSettings, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        if not is_capturable(state, g):
            return gan.eager_step(state, g, batch)
        if plain[0] < plain[1]:
            plain[0] += 1
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                values = gan.eager_step(state, g, batch)
            torch.cuda.current_stream().wait_stream(side)
            return values
        penalised = g.r1 > 0 and state.step % R1_INTERVAL == 0
        try:
            if penalised not in recorded:
                recorded[penalised] = _CapturedStep(state, g, batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as e:
            print(
                f"A step could not be recorded ({str(e).splitlines()[0]}); the training goes on without.",
                file=sys.stderr,
            )
            plain[1] = sys.maxsize
            return gan.eager_step(state, g, batch)
        values = recorded[penalised](batch)
        state.step += 1
        return values

    return take
