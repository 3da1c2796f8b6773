"""The gallery's filters and orders, its quiz, and the records of its items. Loads no torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binom

from core.files import UserError

if TYPE_CHECKING:
    from core.inference.gallery.generated_voices import GeneratedVoices
    from core.inference.gallery.real_items import RealItems

# ------------------------------------------------------------------ filters and orders

# Verdict -> words, and a mask over the first choices of scorer s and Q q and the emotion k, (n,)
VERDICTS = {
    "any": ("any verdict", lambda s, q, k: np.ones(len(k), bool)),
    "right": ("scorer and Q right", lambda s, q, k: (s == k) & (q == k)),
    "scorer-right": ("scorer right", lambda s, q, k: s == k),
    "scorer-wrong": ("scorer wrong", lambda s, q, k: s != k),
    "q-right": ("Q right", lambda s, q, k: q == k),
    "q-wrong": ("Q wrong", lambda s, q, k: q != k),
    "apart": ("scorer and Q disagree", lambda s, q, k: s != q),
}
# Order -> words, and the sort key (n,) of real items r and generated voices m, smallest first
ORDERS = {
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
    """(n, K), (n,) -> (n,) softmax of each row's own emotion."""
    return o[np.arange(len(label)), label]


def available_orders(m: GeneratedVoices) -> list[str]:
    """Orders whose sort key is known for all voices."""
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
    """Rows of `r` with an emotion, a subject ("" is any) and a verdict, in an order.

    >>> from types import SimpleNamespace
    >>> r = SimpleNamespace(label=np.array([0, 1, 1]), subject=np.array(["a", "a", "b"]))
    >>> scorer = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    >>> m = SimpleNamespace(scorer=scorer, Q=scorer)
    >>> select_items(r, m, emotion=1, order="sure")
    array([1, 2])
    >>> select_items(r, m, verdict="scorer-wrong", order="unsure")
    array([2])
    >>> select_items(r, m, subject="a", order="unsure")
    array([1, 0])
    """
    keep = VERDICTS[verdict][1](m.scorer.argmax(axis=1), m.Q.argmax(axis=1), r.label)
    if emotion is not None:
        keep &= r.label == emotion
    if subject:
        keep &= r.subject == subject
    rows = np.nonzero(keep)[0]
    return rows[np.argsort(ORDERS[order][1](r, m)[rows], kind="stable")]


def share_closer(typical: np.ndarray, distance: float) -> float:
    """Share of real voices (n,) that are at most `distance` dB from their nearest training voice.

    Near 0: closer to a training voice than other people are. NaN without real voices.

    >>> share_closer(np.array([4.0, 5.0, 6.0, 7.0]), 5.0)
    0.5
    """
    return float((typical <= distance).mean()) if len(typical) else float("nan")


# ------------------------------------------------------------------ quiz: real or generated?

ROUNDS_PER_QUIZ = 10


@dataclass(frozen=True)
class Round:
    """One question of the quiz."""

    item: int  # row of `RealItems`
    condition: str  # condition of the generator; of a real voice, the one it is played against
    is_generated: bool


@dataclass(frozen=True)
class Score:
    """Score of a player."""

    right: int  # right answers
    streak: int  # right answers in a row at the end
    longest_streak: int
    errors_by_emotion: dict[int, tuple[int, int]]  # emotion -> wrong answers, questions
    generated_as_real: int  # generated voices taken for real
    real_as_generated: int  # real voices taken for generated
    chance: float  # probability that a guesser has at least as many right answers


def make_rounds(
    r: RealItems, conditions: Sequence[str], seed: int, n: int = ROUNDS_PER_QUIZ
) -> list[Round]:
    """n questions from a seed, half of them generated, no item twice.

    Emotions and conditions are as even as possible. Raises UserError if fewer than n items have a
    real voice on this machine.
    """
    rng = np.random.default_rng(seed)
    pool = [
        rng.permutation(np.nonzero((r.label == k) & (r.voice_row >= 0))[0]).tolist()
        for k in rng.permutation(np.unique(r.label))
    ]
    items = [of[i] for i in range(max(map(len, pool), default=0)) for of in pool if i < len(of)][:n]
    if len(items) < n:
        raise UserError(
            f"a quiz of {n} rounds needs as many real voices, and there are {len(items)}"
        )
    generated = rng.permutation(np.arange(n) % 2 == 0)
    whose = np.resize(rng.permutation(np.array(conditions)), n)
    return [
        Round(int(i), str(c), bool(g))
        for i, c, g in zip(rng.permutation(items), rng.permutation(whose), generated, strict=True)
    ]


def score_answers(questions: Sequence[Round], answers: Sequence[bool], label: np.ndarray) -> Score:
    """The score of the answers given so far (True: "generated"); label (n,) is `RealItems.label`.

    >>> rounds = [Round(0, "cp", True), Round(1, "cp", False), Round(2, "cp", True)]
    >>> score = score_answers(rounds, [True, True, False], np.array([0, 0, 1]))
    >>> score.right, score.errors_by_emotion, score.chance
    (1, {0: (1, 2), 1: (1, 1)}, 0.875)
    """
    is_right = [q.is_generated == a for q, a in zip(questions, answers, strict=False)]
    streak, longest, errors, as_real = 0, 0, dict[int, tuple[int, int]](), 0
    for q, right in zip(questions, is_right, strict=False):
        streak = streak + 1 if right else 0
        longest = max(longest, streak)
        emotion = int(label[q.item])
        wrong, count = errors.get(emotion, (0, 0))
        errors[emotion] = wrong + (not right), count + 1
        as_real += q.is_generated and not right
    correct, n = sum(is_right), len(is_right)
    chance = float(binom.sf(correct - 1, n, 0.5))
    return Score(correct, streak, longest, errors, as_real, n - correct - as_real, chance)


# ------------------------------------------------------------------ records


def item_record(
    r: RealItems, m: dict[str, GeneratedVoices], i: int, classes: Sequence[str], ids: dict[str, str]
) -> dict[str, Any]:
    """The record of item i, ready for json. `ids`: condition -> run id."""

    def by_class(v: np.ndarray) -> dict[str, float]:
        return {k: round(float(x), 6) for k, x in zip(classes, v)}

    out: dict[str, Any] = {
        "set": r.name,
        "row": int(r.row[i]),
        "clip": str(r.clip[i]),
        "subject": str(r.subject[i]),
        "emotion": classes[r.label[i]],
        "pairing": "clip" if r.paired else "emotion",
        "softmax": by_class(r.o[i]),
        "p-values": by_class(r.p[i]),
    }
    if (j := r.voice_row[i]) >= 0:
        out["real voice"] = {"clip": str(r.voices.clip[j]), "subject": str(r.voices.subject[j])}
    out["generated"] = {}
    for condition, one in m.items():
        of: dict[str, Any] = {
            "run": ids[condition],
            "told": by_class(one.c[i]),
            "heard by Q": by_class(one.Q[i]),
            "heard by the scorer": by_class(one.scorer[i]),
        }
        if (near := one.near[i]) >= 0:
            db = float(one.near_db[i])
            clip = str(r.trained.clip[near])
            of["nearest training voice"] = {"clip": clip, "distance_db": round(db, 3)}
            of["real voices as near"] = round(share_closer(r.real_nearest_db, db), 4)
        out["generated"][condition] = of
    return out


CSV_COLUMNS = (
    *("set", "row", "clip", "subject", "emotion", "seen by f_S", "credibility", "confidence"),
    *("real clip", "real subject"),
)
CSV_COLUMNS_BY_CONDITION = (
    *("scorer hears", "scorer p of emotion", "Q hears", "Q p of emotion"),
    *("nearest training clip", "distance dB", "distance FID"),
)


def to_csv(
    r: RealItems, m: dict[str, GeneratedVoices], rows: np.ndarray, classes: Sequence[str]
) -> str:
    """Some items as CSV: a line for each, with columns for its face, real voice and conditions."""
    out, names = io.StringIO(), list(classes)
    write = csv.writer(out, lineterminator="\n")
    write.writerow([*CSV_COLUMNS, *(f"{c}: {k}" for c in m for k in CSV_COLUMNS_BY_CONDITION)])
    seen, credibility, confidence = r.seen, r.credibility, r.confidence
    for i in rows.tolist():
        k, j = int(r.label[i]), int(r.voice_row[i])
        line = [r.name, r.row[i], r.clip[i], r.subject[i], names[k], names[seen[i]]]
        line += [f"{credibility[i]:.6g}", f"{confidence[i]:.6g}"]
        line += [r.voices.clip[j], r.voices.subject[j]] if j >= 0 else ["", ""]
        for one in m.values():
            for o in (one.scorer[i], one.Q[i]):
                line += [names[int(o.argmax())], f"{o[k]:.6g}"]
            near = int(one.near[i])
            line += [r.trained.clip[near], f"{one.near_db[i]:.6g}"] if near >= 0 else ["", ""]
            line.append(f"{one.far[i]:.6g}" if np.isfinite(one.far[i]) else "")
        write.writerow(line)
    return out.getvalue()
