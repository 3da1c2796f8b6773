"""What visitors do in a gallery: choose and order its items, guess which voice is real, and take away what they found. No torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binom

if TYPE_CHECKING:
    from core.inference.gallery import GeneratedVoices, RealItems

# ------------------------------------------------------------------ which of them, in which order

VERDICTS = {  # -> words, whether a sample is one: heard by the scorer, heard by Q, the face's emotion, (n,) each
    "any": ("any verdict", lambda s, q, k: np.ones(len(k), bool)),
    "right": ("scorer and Q right", lambda s, q, k: (s == k) & (q == k)),
    "scorer-right": ("scorer right", lambda s, q, k: s == k),
    "scorer-wrong": ("scorer wrong", lambda s, q, k: s != k),
    "q-right": ("Q right", lambda s, q, k: q == k),
    "q-wrong": ("Q wrong", lambda s, q, k: q != k),
    "apart": ("scorer and Q disagree", lambda s, q, k: s != q),
}
ORDERS = {  # -> words, what the items are sorted by, smallest first
    "mixed": ("mixed", lambda r, m: np.random.default_rng(0).permutation(len(r))),
    "set": ("as in the set", lambda r, m: np.arange(len(r))),
    "credible": ("most credible face first", lambda r, m: -r.credibility),
    "strange": ("least credible face first", lambda r, m: r.credibility),
    "sure": ("scorer surest of the emotion", lambda r, m: -_label_probability(m.scorer, r.label)),
    "unsure": ("scorer least sure of it", lambda r, m: _label_probability(m.scorer, r.label)),
    "copy": ("nearest to a training voice", lambda r, m: m.near_db),
    "typical": ("most like real voices (FID's features)", lambda r, m: m.far),
    "odd": ("least like real voices", lambda r, m: -m.far),
}


def _label_probability(o: np.ndarray, label: np.ndarray) -> np.ndarray:
    return o[np.arange(len(label)), label]


def available_orders(m: GeneratedVoices) -> list[str]:
    """The orders that have something to sort by."""
    needs = {"copy": m.near_db, "typical": m.far, "odd": m.far}
    return [k for k in ORDERS if k not in needs or np.isfinite(needs[k]).all()]


def select_items(
    r: RealItems,
    m: GeneratedVoices,
    emotion: int | None = None,
    subject: str = "",
    verdict: str = "any",
    order: str = "mixed",
) -> np.ndarray:
    """Items of an emotion, a subject ("" is any) and a verdict, in an order: rows of `r`."""
    keep = VERDICTS[verdict][1](m.scorer.argmax(axis=1), m.Q.argmax(axis=1), r.label)
    if emotion is not None:
        keep &= r.label == emotion
    if subject:
        keep &= r.subject == subject
    rows = np.nonzero(keep)[0]
    return rows[np.argsort(ORDERS[order][1](r, m)[rows], kind="stable")]


def share_closer(typical: np.ndarray, distance: float) -> float:
    """The share of real voices whose nearest training voice is as close as `distance` or closer: near 0, it is closer than people are."""
    return float((typical <= distance).mean()) if len(typical) else float("nan")


# ------------------------------------------------------------------ real or generated? A quiz

ROUNDS_PER_QUIZ = 10  # of a quiz


@dataclass(frozen=True)
class Round:
    """One question."""

    item: int  # row of `Real`
    condition: str  # whose generator it is, or would be
    is_generated: bool


@dataclass(frozen=True)
class Score:
    """How a player does."""

    right: int
    streak: int  # right answers in a row, up to now
    longest_streak: int
    errors_by_emotion: dict[int, tuple[int, int]]  # emotion -> wrong answers, questions
    generated_as_real: int  # generated voices taken for real
    real_as_generated: int  # real voices taken for generated
    chance: float  # how often somebody who only guesses is right as often, or oftener


def make_rounds(
    r: RealItems, conditions: Sequence[str], seed: int, n: int = ROUNDS_PER_QUIZ
) -> list[Round]:
    """n questions from a seed, half of them generated, no item twice, emotions and conditions as even as they can be.

    Raises ValueError where no real voice is here, or fewer than n items have one.
    """
    rng = np.random.default_rng(seed)
    pool = [
        rng.permutation(np.nonzero((r.label == k) & (r.voice_row >= 0))[0]).tolist()
        for k in rng.permutation(np.unique(r.label))
    ]
    items = [of[i] for i in range(max(map(len, pool), default=0)) for of in pool if i < len(of)][:n]
    if len(items) < n:
        raise ValueError(
            f"a quiz of {n} rounds needs as many real voices, and there are {len(items)}"
        )
    generated, whose = (
        rng.permutation(np.arange(n) % 2 == 0),
        np.resize(rng.permutation(np.array(conditions)), n),
    )
    return [
        Round(int(i), str(c), bool(g))
        for i, c, g in zip(rng.permutation(items), rng.permutation(whose), generated, strict=True)
    ]


def score_answers(questions: Sequence[Round], answers: Sequence[bool], label: np.ndarray) -> Score:
    """The score of the answers given so far (True: "generated"); label (n,) is `Real.label`."""
    good = [q.is_generated == a for q, a in zip(questions, answers, strict=False)]
    streak, longest, fooled, believed = 0, 0, dict[int, tuple[int, int]](), 0
    for q, right in zip(questions, good, strict=False):
        streak = streak + 1 if right else 0
        longest = max(longest, streak)
        wrong, asked = fooled.get(int(label[q.item]), (0, 0))
        fooled[int(label[q.item])] = wrong + (not right), asked + 1
        believed += q.is_generated and not right
    doubted = good.count(False) - believed
    return Score(
        sum(good),
        streak,
        longest,
        fooled,
        believed,
        doubted,
        float(binom.sf(sum(good) - 1, len(good), 0.5)),
    )


# ------------------------------------------------------------------ to take away


def item_record(
    r: RealItems, m: dict[str, GeneratedVoices], i: int, classes: Sequence[str], ids: dict[str, str]
) -> dict[str, Any]:
    """All that is known of one item, ready for json. `ids`: condition -> run id."""

    def named(v: np.ndarray) -> dict[str, float]:
        return {k: round(float(x), 6) for k, x in zip(classes, v)}

    out: dict[str, Any] = {
        "set": r.name,
        "row": int(r.row[i]),
        "clip": str(r.clip[i]),
        "subject": str(r.subject[i]),
    }
    out |= {"emotion": classes[r.label[i]], "pairing": "clip" if r.paired else "emotion"}
    out |= {"softmax": named(r.o[i]), "p-values": named(r.p[i])}
    if r.voice_row[i] >= 0:
        out["real voice"] = {
            "clip": str(r.voices.clip[r.voice_row[i]]),
            "subject": str(r.voices.subject[r.voice_row[i]]),
        }
    out["generated"] = {}
    for condition, one in m.items():
        of: dict[str, Any] = {
            "run": ids[condition],
            "told": named(one.c[i]),
            "heard by Q": named(one.Q[i]),
            "heard by the scorer": named(one.scorer[i]),
        }
        if one.near[i] >= 0:
            of["nearest training voice"] = {
                "clip": str(r.trained.clip[one.near[i]]),
                "distance_db": round(float(one.near_db[i]), 3),
            }
            of["real voices as near"] = round(
                share_closer(r.real_nearest_db, float(one.near_db[i])), 4
            )
        out["generated"][condition] = of
    return out


def to_csv(
    r: RealItems, m: dict[str, GeneratedVoices], rows: np.ndarray, classes: Sequence[str]
) -> str:
    """A line for each of some items: the face, its real voice, and for each condition what is heard, how near a training voice is."""
    out, names = io.StringIO(), list(classes)
    write = csv.writer(out, lineterminator="\n")
    heads = [
        "set",
        "row",
        "clip",
        "subject",
        "emotion",
        "seen by f_S",
        "credibility",
        "confidence",
        "real clip",
        "real subject",
    ]
    each = [
        "scorer hears",
        "scorer p of emotion",
        "Q hears",
        "Q p of emotion",
        "nearest training clip",
        "distance dB",
        "distance FID",
    ]
    write.writerow(heads + [f"{c}: {k}" for c in m for k in each])
    seen, first, sure = r.seen, r.credibility, r.confidence
    for i in rows.tolist():
        k, j = int(r.label[i]), int(r.voice_row[i])
        line = [
            r.name,
            r.row[i],
            r.clip[i],
            r.subject[i],
            names[k],
            names[seen[i]],
            f"{first[i]:.6g}",
            f"{sure[i]:.6g}",
        ]
        line += [r.voices.clip[j], r.voices.subject[j]] if j >= 0 else ["", ""]
        for one in m.values():
            for o in (one.scorer[i], one.Q[i]):
                line += [names[int(o.argmax())], f"{o[k]:.6g}"]
            near = int(one.near[i])
            line += [r.trained.clip[near], f"{one.near_db[i]:.6g}"] if near >= 0 else ["", ""]
            line.append(f"{one.far[i]:.6g}" if np.isfinite(one.far[i]) else "")
        write.writerow(line)
    return out.getvalue()
