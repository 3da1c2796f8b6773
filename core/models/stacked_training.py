"""Training of many runs as one batched model (torch.func), each with its data and randomness.

The networks are tiny and kernel launches dominate; a stack launches each kernel once for all runs.
A stack's weights have the run as an additional first dimension. The runs' own networks and
optimisers are views of these weights, so a run is evaluated, saved and resumed as if it were
trained alone. Tests check that.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from core.config.settings import GanSettings
from core.models import cuda_graphs, gan
from core.models.flow import matching
from core.models.gan import GanState, StepFunction, StepRecord, TrainingData


class NetworkStack(nn.Module):
    """R networks of one architecture as a batched one: (R, B, ...) -> (R, B, ...)."""

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        first = networks[0]
        own = [list(n.parameters()) for n in networks], [list(n.buffers()) for n in networks]
        parameters, buffers = first.named_parameters(), first.named_buffers()
        self.names = [k for k, _ in parameters], [k for k, _ in buffers]
        stacked = [nn.Parameter(_stack_tensors(of)) for of in zip(*own[0], strict=True)]
        self.weights = nn.ParameterList(stacked)
        for k, of in enumerate(zip(*own[1], strict=True)):
            self.register_buffer(f"buffer_{k}", _stack_tensors(of))
        # the architecture on "meta", without weights; no attribute of the module's own parameters
        object.__setattr__(self, "form", copy.deepcopy(first).to("meta"))
        self.train(first.training)
        # The networks' tensors become views of their row of the stack.
        together = [*self.weights, *self.buffers()]
        for row, tensors in enumerate(zip(*own, strict=True)):
            for whole, part in zip(together, itertools.chain(*tensors), strict=True):
                part.data = whole.data[row]

    def weights_and_buffers(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """All runs' weights (R, ...) by name, and batch norm's statistics by name."""
        weights = dict(zip(self.names[0], self.weights, strict=True))
        return weights, dict(zip(self.names[1], self.buffers(), strict=True))

    def train(self, mode: bool = True) -> NetworkStack:
        self.form.train(mode)  # type: ignore[union-attr]
        return super().train(mode)

    def forward(self, *inputs: Tensor) -> Tensor:
        def call(w: dict, b: dict, *t: Tensor) -> Tensor:
            return functional_call(self.form, (w, b), t)  # type: ignore[arg-type]

        return torch.vmap(call)(*self.weights_and_buffers(), *inputs)


def _stack_tensors(of: Sequence[Tensor]) -> Tensor:
    """Stack tensors of one shape to (R, ...); each row has the first one's memory layout."""
    first, size = of[0].detach(), of[0].numel()
    memory = first.new_empty(len(of) * size)
    out = memory.as_strided((len(of), *first.shape), (size, *first.stride()))
    return out.copy_(torch.stack([t.detach() for t in of]))


def is_stackable(settings: Sequence[GanSettings], states: Sequence[GanState]) -> bool:
    """Whether these runs can form one stack: GANs of equal settings, steps and shapes."""

    def form(s: GanState) -> list:
        return [s.step] + [(k, v.shape) for n in (s.G, s.D, s.Q) for k, v in n.state_dict().items()]

    g, first = settings[0], form(states[0])
    return (
        g.generator != "flow"
        and all(g == h for h in settings)
        and all(form(s) == first for s in states)
    )


def stack_states(states: Sequence[GanState]) -> GanState:
    """One GanState of R runs, whose own states become views of it.

    Raises ValueError if they are at different steps.
    """
    steps = [s.step for s in states]
    if len(set(steps)) > 1:
        raise ValueError(f"a stack's runs must be at the same step; these are at {steps}")
    first = states[0]
    G, D, Q = (NetworkStack([getattr(s, k) for s in states]) for k in ("G", "D", "Q"))
    shown = G
    if first.shown is not first.G:
        shown = NetworkStack([s.shown for s in states]).requires_grad_(False)
    optimisers = {}
    for k, stack in (("G", G), ("D", D), ("Q", Q)):
        if k in first.optimisers:
            own = [s.optimisers[k] for s in states]
            optimisers[k] = _stack_optimisers(stack, own, [getattr(s, k) for s in states])
    generators = tuple(g for s in states if isinstance(g := s.generator, torch.Generator))
    return GanState(G, D, Q, optimisers, generators, shown, first.step)


def _stack_optimisers(
    stack: NetworkStack, own: Sequence[torch.optim.Optimizer], networks: Sequence[nn.Module]
) -> torch.optim.Optimizer:
    """An optimiser of the stack's weights; the runs' moments become views of its moments."""
    settings = {k: v for k, v in own[0].param_groups[0].items() if k in own[0].defaults}
    settings.pop("initial_accumulator_value", None)
    out = type(own[0])(stack.weights.parameters(), **settings)
    for k, weight in enumerate(stack.weights):
        each = [o.state[list(n.parameters())[k]] for o, n in zip(own, networks, strict=True)]
        if not each[0]:
            continue
        state = out.state[weight]
        for name, value in each[0].items():
            if value.dim() == 0:  # a counter, equal in all runs
                state[name] = value.clone()
            else:
                state[name] = gan.copy_with_layout(torch.stack([e[name] for e in each]), weight)
            for row, e in enumerate(each):
                e[name] = state[name] if value.dim() == 0 else state[name][row]
    return out


def _share_moments(stack: GanState, states: Sequence[GanState]) -> None:
    """Give the runs' optimisers views of the moments that the stack allocated."""
    for k, optimiser in stack.optimisers.items():
        together = getattr(stack, k)
        for row, s in enumerate(states):
            own = s.optimisers[k]
            for weight, p in zip(together.weights, getattr(s, k).parameters(), strict=True):
                moments = optimiser.state[weight]
                if not own.state[p] and moments:
                    own.state[p] = {n: v[row] if v.dim() else v for n, v in moments.items()}


def _separate_counters(states: Sequence[GanState]) -> None:
    """Give runs that leave a stack their own step counters."""
    for s in states:
        for optimiser in s.optimisers.values():
            for moments in optimiser.state.values():
                moments.update({k: v.clone() for k, v in moments.items() if v.dim() == 0})


def step_together(
    stack: GanState,
    states: Sequence[GanState],
    g: GanSettings,
    batches: Sequence[tuple[Tensor, ...]],
    take: StepFunction = gan.eager_step,
) -> list[dict[str, Tensor]]:
    """One `gan.step` of all runs, each with its batch (x, c, target, y, y_target).

    Returns each run's values.
    """
    values = take(stack, g, tuple(torch.stack(parts) for parts in zip(*batches, strict=True)))
    _share_moments(stack, states)
    for s in states:
        s.step += 1
    return [{k: v[row] for k, v in values.items()} for row in range(len(states))]


TrainFunction = Callable[[GanState, TrainingData, GanSettings], Iterator[StepRecord]]


def train_together(size: int, work: Callable[[int, TrainFunction], None]) -> None:
    """Call work(k, train) in a thread for each k below `size`; the trainings share their steps.

    `train` replaces `gan.train`. The first exception of a `work` is raised when all have ended.
    """
    coordinator, raised = StackCoordinator(size), list[BaseException]()

    def member(k: int) -> None:
        coordinator.wait_for_turn(k)
        try:
            work(k, coordinator.train(k))
        except BaseException as e:
            raised.append(e)
        finally:
            coordinator.leave(k)

    threads = [threading.Thread(target=member, args=(k,), daemon=True) for k in range(size)]
    for t in threads:
        t.start()
    for t in threads:
        while t.is_alive():  # a join without a time limit would block signals
            t.join(0.2)
    if raised:
        raise raised[0]


class StackCoordinator:
    """Coordinates trainings that take their steps together, each in its own thread.

    One thread runs at a time. When it asks for a step the next thread runs, and the last one to ask
    takes the step for all, so the results do not depend on thread scheduling. A run that cannot be
    stacked trains alone.
    """

    def __init__(self, size: int):
        self.turn = threading.Condition()
        self.current_member, self.members = 0, set(range(size))
        self.requests: dict[int, tuple[GanState, GanSettings, tuple[Tensor, ...]]] = {}
        self.answers: dict[int, dict[str, Tensor] | Exception] = {}
        self.stacks: dict[tuple[int, ...], tuple[GanState, StepFunction]] = {}

    def _next(self) -> None:
        """Pass the turn on; if all members wait for a step, take it first."""
        if self.members and self.members == set(self.requests):
            members = sorted(self.requests)
            try:
                self._run_requests()
            except Exception as e:  # such as lack of memory: all members must get an answer
                self.requests.clear()
                self.answers.update(dict.fromkeys(members, e))
        order = sorted(self.members - set(self.requests))
        after = [k for k in order if k > self.current_member]
        self.current_member = (after or order or [0])[0]
        self.turn.notify_all()

    def _run_requests(self) -> None:
        members = sorted(self.requests)
        states, settings, batches = zip(*(self.requests.pop(k) for k in members), strict=True)
        if len(members) > 1 and is_stackable(settings, states):
            key = tuple(members)
            if key not in self.stacks:
                # the members may be views of a former stack
                self.stacks = {key: (stack_states(states), cuda_graphs.new_step_function())}
            stack, take = self.stacks[key]
            values = step_together(stack, states, settings[0], batches, take)
        else:
            if self.stacks:
                _separate_counters(states)
            self.stacks = {}
            alone = zip(states, settings, batches, strict=True)
            values = [matching.step_function(g)(s, g, batch) for s, g, batch in alone]
        self.answers.update(zip(members, values, strict=True))

    def wait_for_turn(self, member: int) -> None:
        """Wait for this member's turn; the first call of its thread."""
        with self.turn:
            self.turn.wait_for(lambda: self.current_member == member)

    def leave(self, member: int) -> None:
        """Leave the stack; the last call of a member's thread, even after an exception."""
        with self.turn:
            self.members.discard(member)
            self.requests.pop(member, None)
            self._next()

    def train(self, member: int) -> TrainFunction:
        """This member's replacement of `gan.train`."""

        def steps(state: GanState, g: GanSettings, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
            with self.turn:
                self.requests[member] = state, g, batch
                self._next()
                self.turn.wait_for(lambda: self.current_member == member and member in self.answers)
                answer = self.answers.pop(member)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return lambda state, pool, g: gan.train(state, pool, g, steps)
