"""A training step (§3) as a CUDA graph on NVIDIA cards: recorded once, then replayed.

The networks are so small that a card would wait for kernel launches during most of a step. The
graph is `gan.step` itself with its random numbers. A step that cannot be recorded (on a CPU, of a
flow, or with Adagrad, whose counters torch keeps on the host) is taken normally.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from core.config.settings import GanSettings
from core.models import gan
from core.models.flow import matching
from core.models.gan import R1_INTERVAL, GanState, StepFunction

# normal steps before recording, in which libraries choose kernels and optimisers allocate moments
WARM_UP_STEPS = R1_INTERVAL + 3


def is_capturable(state: GanState, g: GanSettings) -> bool:
    """Whether steps of this training can be recorded."""
    game = g.generator != "flow"
    return game and next(state.G.parameters()).is_cuda and g.optimiser == "adam"


class CapturedStep:
    """A recorded step, with or without D's R1 penalty, and its input and output memory."""

    def __init__(self, state: GanState, g: GanSettings, batch: tuple[Tensor, ...]):
        self.inputs = tuple(t.clone() for t in batch)
        self.graph = torch.cuda.CUDAGraph()
        single = isinstance(state.generator, torch.Generator)
        for generator in [state.generator] if single else state.generator:  # type: ignore[union-attr]
            self.graph.register_generator_state(generator)
        torch.cuda.synchronize()
        with torch.cuda.graph(self.graph):
            self.values = gan.step(state, g, *self.inputs)

    def __call__(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        for memory, values in zip(self.inputs, batch, strict=True):
            memory.copy_(values)
        self.graph.replay()
        return {k: v.clone() for k, v in self.values.items()}


def new_step_function() -> StepFunction:
    """A step function for `gan.train` or a stack: normal steps first, then recorded ones.

    Each kind of step, with and without R1, is recorded once. A failed recording is reported on
    stderr and normal steps go on; lack of memory is raised.
    """
    recorded: dict[bool, CapturedStep] = {}
    normal_steps, wanted_steps = 0, WARM_UP_STEPS  # taken so far; to take before recording

    def take(state: GanState, g: GanSettings, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        if not is_capturable(state, g):
            return matching.step_function(g)(state, g, batch)
        nonlocal normal_steps, wanted_steps
        if normal_steps < wanted_steps:
            normal_steps += 1
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                values = gan.eager_step(state, g, batch)
            torch.cuda.current_stream().wait_stream(side)
            return values
        penalised = g.r1 > 0 and state.step % R1_INTERVAL == 0
        try:
            if penalised not in recorded:
                recorded[penalised] = CapturedStep(state, g, batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as e:
            reason = f"A step could not be recorded ({str(e).splitlines()[0]})"
            print(f"{reason}; the training goes on without recording.", file=sys.stderr)
            wanted_steps = sys.maxsize
            return gan.eager_step(state, g, batch)
        values = recorded[penalised](batch)
        state.step += 1
        return values

    return take
