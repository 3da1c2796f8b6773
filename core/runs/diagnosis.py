"""What goes wrong in a training, in words: too small sets, a G that collapsed or hardly learns.

The command line says it while the run trains, the page Train shows it. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.config.settings import Config

# of samples that hardly depend on the noise; our shipped runs end between 0.08 and 1
COLLAPSE_DIVERSITY = 0.02
COLLAPSE_SHARE = 0.1  # of the steps in which a low diversity is usual: an untrained G has 0.01
COLLAPSE_STEPS = 30  # and in so many, however few a run has

STANDSTILL_SHARE = 0.6  # of the FID before training, which a training should leave behind
STANDSTILL_STEPS = 100  # fewer teach nothing, and are not meant to

Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]


def set_warnings(config: Config, table: Mapping) -> list[str]:
    """What is wrong with S1..S4, from the table of `data.splits.set_table` in sets.json.

    A table that is anything else, which a stranger's may be, gives no warning.
    """
    try:
        found = [w for name, sides in table.items() for w in _one_set_warnings(str(name), sides)]
        target = "voices" if config.gan.direction == "face-voice" else "faces"
        names = ("S1", "S2", "S3") if config.data.listening else ("S3",)
        pairs = sum(int(table[name][target]["clips"]) for name in names if name in table)
    except (AttributeError, KeyError, TypeError, ValueError):
        return []
    if pairs < config.gan.batch and table:
        found.append(
            f"G learns from {pairs:,} {target}, fewer than a batch of {config.gan.batch:,}: each "
            f"step takes them all. Use more clips, or --gan.batch {max(2, pairs)}."
        )
    return found


def _one_set_warnings(name: str, sides: Mapping) -> list[str]:
    """Classes without a clip, and a single subject, of faces and voices."""
    found = []
    for side, of in sides.items():
        if empty := [str(k) for k, n in of["classes"].items() if not n]:
            found.append(
                f"{name} has no {side} of {', '.join(empty)}: nothing is learnt or said of it."
            )
        if len(of["subjects"]) + of["unknown"] == 1:
            found.append(
                f"The {side} of {name} are of one person: what holds of them may hold of no other."
            )
    return found


def generator_warning(config: Config, curves: Curves) -> str:
    """What the last figures say of G: a collapse, or that it hardly learns; "" if neither."""
    steps, values = curves.get("diversity", ((), ()))
    found = collapse_warning(config, steps[-1], values[-1]) if len(steps) else ""
    steps, values = curves.get("FID", ((), ()))
    if found or not len(steps) or steps[0] != 0:
        return found
    return standstill_warning(config, steps[-1], values[0], values[-1])


def collapse_warning(config: Config, step: int, diversity: float | None) -> str:
    """Whether G makes one sample whatever its noise, by the diversity at a step; "" if not."""
    is_early = step <= max(COLLAPSE_STEPS, COLLAPSE_SHARE * config.gan.steps)
    if diversity is None or is_early or diversity >= COLLAPSE_DIVERSITY:
        return ""
    return (
        f"G has collapsed: at step {step:,} the noise changes a sample by {diversity:.1%} of how "
        "real ones differ. Stop it; a lower --gan.lr-g, --gan.l1 0.1 or --gan.d-norm group helps."
    )


def standstill_warning(config: Config, step: int, first: float, fid: float) -> str:
    """Whether the second half of a training still has a FID near that before it; "" if not."""
    is_early = step < max(STANDSTILL_STEPS, config.gan.steps / 2)
    if is_early or not fid > STANDSTILL_SHARE * first:
        return ""
    return (
        f"G hardly learns: at step {step:,} its FID is {fid:.1f}, and {first:.1f} before training. "
        "More --gan.steps or another --seed may help."
    )


def training_warnings(config: Config, table: Mapping, curves: Curves) -> list[str]:
    """All that goes wrong in a run, from its sets and its curves (name -> steps, values)."""
    return [*set_warnings(config, table), *filter(None, [generator_warning(config, curves)])]
