"""Many runs at once: several trainings of one architecture as a single batched model (torch.func), each with its own data and randomness.

The networks are tiny; what a GPU waits for is the launch of their kernels, and a stack launches each of them once for all runs. A stack's
weights have a first dimension more, one row for each run; the runs' own networks and optimisers are views of those rows, so that whoever
evaluates, saves or resumes one run finds it as if it had been trained alone. Tests hold it to that.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from core.config import GanSettings
from core.models import cuda_graphs, gan
from core.models.gan import GanState, StepFunction, StepRecord, TrainingData


class NetworkStack(nn.Module):
    """R networks of one architecture as one: inputs (R, B, ...) -> outputs (R, B, ...)."""

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        own = [list(n.parameters()) for n in networks], [list(n.buffers()) for n in networks]
        self.names = (
            [k for k, _ in networks[0].named_parameters()],
            [k for k, _ in networks[0].named_buffers()],
        )
        self.weights = nn.ParameterList(
            [nn.Parameter(_stack_tensors(of)) for of in zip(*own[0], strict=True)]
        )
        for k, of in enumerate(zip(*own[1], strict=True)):
            self.register_buffer(f"buffer_{k}", _stack_tensors(of))
        object.__setattr__(
            self, "form", copy.deepcopy(networks[0]).to("meta")
        )  # the way through a network, without weights of its own
        self.train(networks[0].training)
        for row, (weights, buffers) in enumerate(
            zip(*own, strict=True)
        ):  # from now on views of this one's rows
            for mine, its in (
                *zip(self.weights, weights, strict=True),
                *zip(self.buffers(), buffers, strict=True),
            ):
                its.data = mine.data[row]

    def weights_and_buffers(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Name -> all runs' (R, ...) weights, and the same of batch norm's statistics."""
        return dict(zip(self.names[0], self.weights, strict=True)), dict(
            zip(self.names[1], self.buffers(), strict=True)
        )

    def train(self, mode: bool = True) -> NetworkStack:
        self.form.train(mode)  # type: ignore[union-attr]
        return super().train(mode)

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.vmap(lambda w, b, *t: functional_call(self.form, (w, b), t))(
            *self.weights_and_buffers(), *inputs
        )  # type: ignore[arg-type]


def _stack_tensors(of: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape as the rows (R, ...) of another, each row's memory in the order of the first one's."""
    first = of[0].detach()
    out = first.new_empty(len(of) * first.numel()).as_strided(
        (len(of), *first.shape), (first.numel(), *first.stride())
    )
    return out.copy_(torch.stack([t.detach() for t in of]))


def is_stackable(settings: Sequence[GanSettings], states: Sequence[GanState]) -> bool:
    """Whether these runs may be one stack: all settings of the training the same, the same step, the same shapes, no spectral norm (whose
    power iteration is no function of its inputs)."""

    def form(s: GanState) -> list:
        return [s.step] + [(k, v.shape) for n in (s.G, s.D, s.Q) for k, v in n.state_dict().items()]

    return (
        all(
            g == settings[0] and form(s) == form(states[0])
            for g, s in zip(settings, states, strict=True)
        )
        and settings[0].d_norm != "spectral"
    )


def stack_states(states: Sequence[GanState]) -> GanState:
    """One State of R runs, whose own States are views of it from now on. Raises ValueError where they are at different steps."""
    if len({s.step for s in states}) > 1:
        raise ValueError(
            f"a stack's runs must be at the same step; these are at {[s.step for s in states]}"
        )
    together = {k: NetworkStack([getattr(s, k) for s in states]) for k in ("G", "D", "Q")}
    first = states[0]
    shown = (
        together["G"]
        if first.shown is first.G
        else NetworkStack([s.shown for s in states]).requires_grad_(False)
    )
    optimisers = {
        k: _stack_optimisers(
            together[k], [s.optimisers[k] for s in states], [getattr(s, k) for s in states]
        )
        for k in first.optimisers
    }
    generators = tuple(g for s in states if isinstance(g := s.generator, torch.Generator))
    return GanState(
        together["G"], together["D"], together["Q"], optimisers, generators, shown, first.step
    )


def _stack_optimisers(
    stack: nn.Module, own: Sequence[torch.optim.Optimizer], networks: Sequence[nn.Module]
) -> torch.optim.Optimizer:
    """An optimiser of the stack's weights with the settings and moments of the runs' own, which become views of its."""
    assert isinstance(stack, NetworkStack)
    settings = {
        k: v
        for k, v in own[0].param_groups[0].items()
        if k not in ("params", "initial_accumulator_value")
    }
    out = type(own[0])(
        stack.weights.parameters(), **{k: v for k, v in settings.items() if k in own[0].defaults}
    )
    for k, weight in enumerate(stack.weights):
        each = [o.state[list(n.parameters())[k]] for o, n in zip(own, networks, strict=True)]
        if not each[0]:
            continue
        state = out.state[weight]
        for name, value in each[0].items():
            if value.dim() == 0:  # a counter, the same for all
                state[name] = value.clone()
            else:
                state[name] = gan.copy_with_layout(torch.stack([e[name] for e in each]), weight)
            for row, e in enumerate(each):
                e[name] = state[name] if value.dim() == 0 else state[name][row]
    return out


def _share_moments(stack: GanState, states: Sequence[GanState]) -> None:
    """Give the runs' optimisers the moments that the stack's made in its first step, as views."""
    for k, optimiser in stack.optimisers.items():
        together = getattr(stack, k)
        for row, s in enumerate(states):
            own = s.optimisers[k]
            for weight, p in zip(together.weights, getattr(s, k).parameters(), strict=True):
                if not own.state[p] and optimiser.state[weight]:
                    own.state[p] = {
                        n: v if v.dim() == 0 else v[row] for n, v in optimiser.state[weight].items()
                    }


def _separate_counters(states: Sequence[GanState]) -> None:
    """Give runs that no longer go together counters of their own."""
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
    """`gan.step` of all runs at once, each with its batch (x, c, target, y, y_target); the values of each."""
    values = take(stack, g, tuple(torch.stack(parts) for parts in zip(*batches, strict=True)))
    _share_moments(stack, states)
    for s in states:
        s.step += 1
    return [{k: v[row] for k, v in values.items()} for row in range(len(states))]


TrainFunction = Callable[[GanState, TrainingData, GanSettings], Iterator[StepRecord]]


def train_together(size: int, work: Callable[[int, TrainFunction], None]) -> None:
    """Call work(k, train) for each k below `size`, each in its thread, where `train` stands in for `gan.train`: whatever it trains takes
    its steps together with the others. What `work` raises is raised here, when all have ended."""
    company, raised = StackCoordinator(size), list[BaseException]()

    def member(k: int) -> None:
        company.wait_for_turn(k)
        try:
            work(k, company.train(k))
        except BaseException as e:
            raised.append(e)
        finally:
            company.leave(k)

    threads = [threading.Thread(target=member, args=(k,), daemon=True) for k in range(size)]
    for t in threads:
        t.start()
    for t in threads:
        while t.is_alive():  # a join without limit would keep signals waiting
            t.join(0.2)
    if raised:
        raise raised[0]


class StackCoordinator:
    """Trainings that take their steps together. Each has a thread, one of which runs at a time: the next begins when this one asks for a
    step, and the last to ask takes the step for all. So nothing depends on how threads are scheduled.

    Whoever is not alike the others, or remains alone, trains by itself.
    """

    def __init__(self, size: int):
        self.turn = threading.Condition()
        self.current_member, self.members = 0, set(range(size))
        self.asked: dict[int, tuple[GanState, GanSettings, tuple[Tensor, ...]]] = {}
        self.answers: dict[int, dict[str, Tensor] | Exception] = {}
        self.stacks: dict[tuple[int, ...], tuple[GanState, StepFunction]] = {}

    def _next(self) -> None:
        """Hand the turn on; when all who are present have asked, answer them first."""
        if self.members and self.members == set(self.asked):
            members = sorted(self.asked)
            try:
                self._run_requests()
            except (
                Exception
            ) as e:  # such as lack of memory: nobody waits for a step that will not come
                self.asked.clear()
                self.answers.update(dict.fromkeys(members, e))
        order = sorted(self.members - set(self.asked))
        after = [k for k in order if k > self.current_member]
        self.current_member = (after or order or [0])[0]
        self.turn.notify_all()

    def _run_requests(self) -> None:
        members = sorted(self.asked)
        states, settings, batches = zip(*(self.asked.pop(k) for k in members), strict=True)
        if len(members) > 1 and is_stackable(settings, states):
            key = tuple(members)
            if key not in self.stacks:
                self.stacks = {
                    key: (stack_states(states), cuda_graphs.new_step_function())
                }  # views of a former stack are as good as any
            stack, take = self.stacks[key]
            values = step_together(stack, states, settings[0], batches, take)
        else:
            if self.stacks:
                _separate_counters(states)
            self.stacks = {}
            values = [gan.eager_step(*one) for one in zip(states, settings, batches, strict=True)]
        self.answers.update(zip(members, values, strict=True))

    def wait_for_turn(self, member: int) -> None:
        """Wait for this member's turn; a thread's first call."""
        with self.turn:
            self.turn.wait_for(lambda: self.current_member == member)

    def leave(self, member: int) -> None:
        """This member asks for no more steps; a thread's last call, whatever happened."""
        with self.turn:
            self.members.discard(member)
            self.asked.pop(member, None)
            self._next()

    def train(self, member: int) -> TrainFunction:
        """What this member calls instead of `gan.train`."""

        def steps(state: GanState, g: GanSettings, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
            with self.turn:
                self.asked[member] = state, g, batch
                self._next()
                self.turn.wait_for(lambda: self.current_member == member and member in self.answers)
                answer = self.answers.pop(member)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return lambda state, pool, g: gan.train(state, pool, g, steps)
