"""Texts of the page Conformal: what each panel shows, common mistakes, and verdicts in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from core.conformal import analysis, calibration, credibility, predictor, validity
from core.conformal.analysis import Analysis
from core.conformal.calibration import CalibrationData
from core.conformal.credibility import CredibilityScale
from core.conformal.validity import ErrorCurve
from core.evaluation.reporting.calibration_share import Choice
from ui import theme
from ui.conformal.calibration import Point, label_names
from ui.session import query_params

PANEL_HELP = {
    "chain": """One input, and the classifier's answer to it, computed from left to right in a row
for each label. The **calibration set** is points of known label that the classifier was not
trained on; every new point is compared with them.

A **test point** is one that the classifier and the calibration never saw; its true label is known,
so the prediction can be checked. A face of your own has no known label, and nothing is promised
for it: it is not a sample of the calibration faces' corpus.

1. The classifier's **softmax**: numbers that sum to one and look like probabilities. Nobody
guarantees that they are.
2. For each label we pretend that it is the true one and ask how **strange** the point would be:
the *nonconformity* α (Eq. 8). The higher, the stranger.
3. We count how many calibration points are at least as strange under their own true label. That
share is the **p-value** (Eq. 9). A high one says: nothing unusual about this label.""",
    "area": """Every calibration point gave one number: how strange it was under its *true* label.
This is their histogram. The line is the point you look at, under the label you chose. **The
coloured area is the p-value**: the share of calibration points at or beyond the line.

The +1 above and below the fraction bar is the point itself, which counts among them. So no
p-value is ever below 1/(n + 1), the *floor*, and no label can be rejected at a smaller ε. With
*by class* a label is only compared with calibration points of that class, so the histogram
changes with the label.""",
    "set": """**Credibility** is the highest p-value: does *any* label fit? How low it can be
depends on the measure: margin and hinge read the softmax alone, so they tell whether the classifier
is undecided, not whether the point is strange (next step).

**Confidence** is 1 − the second highest p-value: can all *other* labels be ruled out?

The **set at ε** holds every label whose p-value is above ε. A small ε is cautious: large sets
that are rarely wrong. A large ε is bold: small sets, even empty ones. **Drag ε**: the set has one
label exactly from 1 − confidence up to credibility.""",
    "strange": """A point can be unlike everything in the calibration set and still get a high
credibility. Margin and hinge see only the softmax, and a network is often sure of a picture that is
no face: a softmax of 1.00 is what a usual, easy face has too.

**Why margin misses it.** The margin of the first choice is the second largest softmax minus the
largest: never above 0. Its p-value counts every calibration point of α ≥ 0, that is every one that
the classifier got wrong. So with pooled scores no credibility is below the classifier's error on
the calibration set. The lowest *hinge* belongs to a softmax that is equal for all labels; it is
lower than margin's, but not 0 either.

**What flags it.** A measure that looks at the picture. Here: the mean distance to the three nearest
drawn faces of a label, ranked among the distances of other drawn people. A cat and noise are
further away than all of them and get the smallest p-value that there is. So is a photograph: for
it, these drawn faces are the wrong calibration set.""",
    "map": """Every test point, by credibility and confidence: how well its best label fits, and how
clearly all other labels are ruled out.

Top right: one label fits and all
others are out. Top left: several labels fit. Bottom right: no label fits. There is nothing at the
bottom left, since the second highest p-value cannot exceed the highest. With *margin* and
*pooled* all points lie on one line: both numbers come from the gap between the two largest
softmax values. Try *hinge*.

**Click a point** to look at it, here and in all other steps.""",
    "promise": """The promise: in the long run, the set misses the true label at most a share ε of
the time. It holds if calibration and test points are **exchangeable**: drawn alike, so that their
order tells nothing, as with cards of one shuffled pack. New people are not.

Each ε gives one error, together a curve, which should follow the dotted line.

It does not follow it exactly, even when all is well: the test points are a sample, and all of
them are ranked among *the same* calibration points. The grey band holds 95 % of all curves that a
valid predictor gives, *everywhere at once*. Leaving it upwards means more errors than promised;
downwards, more caution than needed.

The other two plots are the price: how many labels the sets hold. A set with all labels is never
wrong, and says nothing.""",
    "uniform": """If the promise holds, the true label's p-value is equally likely to be anywhere
between 0 and 1, so that this histogram is flat. High bars at the left: true labels look stranger
than in calibration, so there are too many errors. High bars at the right: the sets are larger
than needed. p-values are smoothed here (ties are split at random), for only those are exactly
uniform.""",
    "parts": """The same error, by class and by subject. *Pooled* scores promise something for all
points together only: one class may fail more often while another makes up for it. *By class*
(Mondrian) scores make the promise to each class, at the price of fewer calibration points each.
Nothing is ever promised to one subject.""",
    "criteria": """Validity alone is easy to reach: the set of all labels is always right. These
numbers say how informative the sets are; they are named as in Vovk et al. (2016). For the
lettered ones, smaller is better.""",
    "broken": """The promise needs exchangeable points. Here is what happens where they are not,
where calibration points are few, and where the plain softmax is used instead.

Left: by how much the error misses ε, from the calibration set to the test set.
Right: the same scores where the promise holds by construction, because calibration and test
points are drawn at random from one set. If the left leaves its band and the right does not, the
two sets differ: here, the people in them do. More calibration points do not help.""",
    "sizes": """Each dot is one random choice of n calibration points. The error's mean stays near
the same place whatever n is: validity does not need many points. But with few points, the error
depends on which were drawn (the dots scatter), and the floor 1/(n + 1) rises until no label can
be rejected.""",
    "softmax": """What a conformal predictor is for. A calibrated softmax that says 0.8 is right
in 80 % of such cases: on the diagonal. Below it, the classifier is overconfident. **ECE** is the
mean distance from the diagonal. Nothing forces a softmax onto it; exchangeability alone makes
p-values valid.""",
    "full": """Algorithm 1 keeps no points apart: for every new point and label a light head
(logistic regression) is fitted again on all of them and the point. Inductive CP with a calibration
set of size r is cheaper. The paper chose r by comparing how both classify; this is that comparison.

The calibration points are halved at random: one half calibrates, points of the other are judged.
The head reads f_S's features where the outputs hold them, and else the logarithm of its softmax.
Cross-conformal prediction averages the p-values of five folds and promises an error of at most 2ε
only. The command with `--choose-r` gives the table for a run's features, and on S4 too.""",
    "generator": """The same face and the same noise, three times; only what the generator is
*told* about the emotion differs: one label, the classifier's softmax, or the p-values. The
difference shows where a voice is louder (red) or quieter (blue). Two classifiers of real voices,
Q and the scorer, then say what they hear.""",
}

COMMON_MISTAKES = (
    """
- **“p = 0.3 means 30 % probable.”** No. It means that 30 % of calibration points are at
least as strange under their true label.
- **“The p-values must sum to one.”** No. All can be high (several labels fit) or all low
(none does).
- **“Low credibility means wrong.”** No. It means that the classifier is undecided, by margin and
hinge. The prediction may still be right.
- **“High credibility means a usual point.”** No. Noise can get 0.9 (next step).
""",
    """
- **“High confidence means right.”** No. It means that other labels are ruled out; the
remaining one may be strange too. Check both.
- **“Error ≤ ε for this point, this class, this person.”** No. For the long run over *all*
points; for each class only *by class*; for one person never.
- **“It holds for anybody's face.”** No. Calibration and new points must be exchangeable.
New subjects weaken the promise, an upload breaks it.
""",
)


LESSON_STEPS = {  # in the lesson's order: step -> short title, full title
    "chain": ("Point", "From softmax to p-value"),
    "area": ("p-value", "The p-value is an area"),
    "set": ("Set", "Credibility, confidence, and the set at ε"),
    "strange": ("Strange", "Strange, or only undecided?"),
    "map": ("Test set", "The whole test set"),
    "promise": ("Promise", "Does the promise hold?"),
    "broken": ("Limits", "When does it break?"),
    "generator": ("Generator", "What it does to the generator"),
}
POINT_STEPS = ("chain", "area", "set", "strange", "map", "generator")  # about one chosen point
EPS_STEPS = ("set", "strange", "promise", "broken")  # steps whose panel depends on ε
FACE_STEPS = ("strange", "generator")  # steps that need a classifier of faces
MAX_UNIFORMITY_P = 0.05  # below this p-value, uniformity is rejected
MAX_CHIPS = 40  # labels of one prediction set that are shown


def steps_for(is_face_classifier: bool) -> list[str]:
    """The lesson's steps that these outputs have, in order."""
    return [k for k in LESSON_STEPS if is_face_classifier or k not in FACE_STEPS]


def short_title(step: str) -> str:
    return f"{list(LESSON_STEPS).index(step) + 1} · {LESSON_STEPS[step][0]}"


def show_heading(step: str, steps: list[str]) -> None:
    """A step's title and the first paragraph of its explanation; buttons: the rest, next step."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.header(LESSON_STEPS[step][1], width="stretch")
        show_help(step)
        for after in steps[steps.index(step) + 1 :][:1]:
            go = {"on_click": query_params.set_value, "args": ("step", after), "key": "next"}
            about = LESSON_STEPS[after][1]
            st.button("Next", icon=":material/arrow_forward:", help=about, **go)
    st.markdown(first_paragraph(step))


def first_paragraph(about: str) -> str:
    return PANEL_HELP[about].split("\n\n", 1)[0].replace("\n", " ")


def show_help(about: str, label: str = "What am I looking at?") -> None:
    with st.popover(label, icon=":material/help:", type="tertiary", key=f"about {about}"):
        st.markdown(PANEL_HELP[about])


def predictor_text(v: Analysis) -> str:
    """Which predictor gives the p-values below, whether it is the run's own, and its promise."""
    own = v.problem.own
    if own is None:
        return f":small[Inductive CP, {v.measure}, {v.groups}.]"
    settings = v.measure, v.groups, v.smoothed, v.r
    words = notes = analysis.predictor_notes(v.problem, v.kind, settings)
    if analysis.is_own_choice(v.problem, v.measure, v.groups, v.r, v.smoothed, v.kind):
        words = [f"The run's own predictor, whose p-values fed its generator: {own.fitted.name}."]
        words += notes
    return f":small[:material/info: {' '.join(words)}]"


def credibility_text(s: CredibilityScale, value: float) -> str:
    """A credibility with its possible range and its place among the test points."""
    return f"Credibility {credibility.describe(s, value, 'test points')}."


def strange_text(
    v: Analysis, best: dict[str, np.ndarray], s: CredibilityScale, names: list[str]
) -> str:
    """Which measures flag the pictures that are no face at ε, and which cannot."""
    words = []
    for measure, values in best.items():
        flagged = [n for n, x in zip(names, values) if x <= v.eps]
        which = f"flags {', '.join(flagged)}" if flagged else "flags none of them"
        words.append(f"**{measure}** {which}")
    return (
        f"At ε = {v.eps:g} {'; '.join(words)}. With {v.measure} and {v.groups} scores no "
        f"credibility below **{s.low:.2f}** is possible for this classifier."
    )


def why_margin_misses() -> str:
    """The paragraphs on why margin misses a strange point, and on what flags it."""
    return PANEL_HELP["strange"].split("\n\n", 1)[1]


def comparison_text(found: Sequence[Choice], data: CalibrationData) -> str:
    """What the comparison with full CP was measured on, and what it comes to, in words."""
    full = next(c for c in found if c.kind == "full")
    own = data.own is not None and data.own.fitted.features.shape[1] > 0
    reads = "f_S's features" if own else "the logarithm of the softmax, as features are not stored"
    gaps = [100 * (c.accuracy.mean() - full.accuracy.mean()) for c in found if c.kind != "full"]
    return (
        f"Halves of the calibration set: {full.n:,} points calibrate, N = {full.judged} judge, "
        f"{len(full.accuracy)} draws (bars: ± 1 sd over draws). The light head reads {reads}. "
        f"Against full CP the others classify {min(gaps):+.1f} to {max(gaps):+.1f} points apart. "
        f"{predictor.CROSS_PROMISE}"
    )


def p_value_text(point: Point, k: int, name: str, smoothed: bool) -> str:
    """Eq. (9) with the numbers of label `k`, whose class is `name`."""
    a, n = point.ranking, point.ranking.n[k]
    if len(point.folds) > 1:
        shares = [
            (np.sum(f.scores[k] >= f.alpha[k]) + 1, len(f.scores[k]) + 1) for f in point.folds
        ]
        fractions = " + ".join(f"{count:,}/{size:,}" for count, size in shares)
        return (
            f"Cross-conformal p-value of *{name}* = mean over {len(shares)} folds = "
            f"({fractions}) / {len(shares)} = **{point.p[k]:.4f}**. {predictor.CROSS_PROMISE}"
        )
    if not n:
        return (
            f"No calibration point is *{name}*: nothing to compare with, so the p-value is "
            f"**{point.p[k]:.3f}** and it rejects nothing."
        )
    if smoothed:
        u = point.noise(k)
        return (
            f"Smoothed p-value of *{name}* = (stranger + U · (ties + 1)) / (n + 1) = "
            f"({a.above[k]:,} + {u:.3f} · ({a.equal[k]:,} + 1)) / ({n:,} + 1) = "
            f"**{point.p[k]:.4f}**, with U drawn from (0, 1]. "
            "Smoothing lets it fall below 1 / (n + 1)."
        )
    return (
        f"p-value of *{name}* = (at least as strange + 1) / (n + 1) = "
        f"({a.above[k] + a.equal[k]:,} + 1) / ({n:,} + 1) = **{point.p[k]:.4f}**. "
        f"The smallest possible value is 1 / ({n:,} + 1) = **{1 / (n + 1):.4f}**."
    )


def prediction_text(point: Point, classes: tuple[str, ...], eps: float) -> str:
    """The prediction set at significance `eps` in a sentence."""
    labels, best = label_names(classes, point.p > eps), classes[point.prediction]
    at = f"At ε = {eps:g}"
    if not labels:
        return (
            f"{at} **no label fits**: under each, few calibration points are as strange. "
            f"The best guess is still *{best}*."
        )
    if len(labels) == 1:
        return f"{at} **only *{best}* fits**: all other labels are rejected."
    if len(labels) == len(classes):
        return f"{at} **nothing can be ruled out**. The best guess is *{best}*."
    rejected = len(classes) - len(labels)
    verb = "is" if rejected == 1 else "are"
    fit = f"{at} **{len(labels)} labels fit** and {rejected} {verb} ruled out."
    return f"{fit} The best guess is *{best}*."


def label_set_html(classes: tuple[str, ...], p: np.ndarray, eps: float) -> str:
    """The prediction set as chips (HTML): the MAX_CHIPS labels of highest p-value."""
    look = "display:inline-block;border:1px solid;border-radius:1rem;padding:.05rem .6rem"
    chip = f'<span style="{look};margin:.1rem .2rem .1rem 0">'
    members = np.flatnonzero(p > eps)
    kept = np.sort(members[np.argsort(-p[members], kind="stable")[:MAX_CHIPS]])
    labels = [theme.emotion_html(classes[k]) for k in kept] or ["∅ empty"]
    if more := len(members) - len(kept):
        labels.append(f"and {more:,} more of lower p-value")
    return "".join(f"{chip}{label}</span>" for label in labels)


def band_exit_text(c: ErrorCurve) -> str:
    """Sentence on where and how far a curve leaves its band."""
    exits = [
        f"leaves it {way} by up to {distance:.3f} (at ε = {at:g}): {meaning}"
        for way, distance, at, meaning in (
            ("upwards", c.above, c.above_at, "more errors than promised"),
            ("downwards", c.below, c.below_at, "more caution than needed"),
        )
        if distance
    ]
    return ", and ".join(exits) or "stays inside it everywhere"


def validity_text(v: Analysis) -> str:
    """Whether the promise holds: the error curve against its 95 % band."""
    if v.kind == "cross":
        return _cross_validity_text(v)
    answer = f"**Yes, for these points;** {_people_text(v)}."
    if v.overall.above:
        answer = ":red[**No.**]"
    elif v.overall.below:
        answer = ":orange[**Not exactly.**]"
    return (
        f"{answer} Against its 95 % band the error curve {band_exit_text(v.overall)} "
        f"(N = {v.m:,} test points, n = {v.n:,} calibration points)."
    )


def _cross_validity_text(v: Analysis) -> str:
    """Whether a cross-conformal predictor keeps its promise, an error of at most 2ε."""
    # the band's upper end at 2ε, for every ε up to a half
    half = len(v.levels) // 2 + 1
    over = v.overall.error[:half] - v.overall.upper[: 2 * half - 1 : 2]
    at, most = v.levels[int(over.argmax())], float(over.max())
    answer = f"**Yes, for these points;** {_people_text(v)}."
    if most > 0:
        answer = f":red[**No:**] at ε = {at:g} the error is {most:.3f} above the band of 2ε."
    return (
        f"{answer} {predictor.CROSS_PROMISE} N = {v.m:,} test points, "
        f"n = {v.n:,} calibration points."
    )


def _people_text(v: Analysis) -> str:
    """What follows for people that nobody has seen, from so many of them."""
    cal, test = v.problem.subject_cal, v.problem.subject_test
    if cal is None or test is None:
        return "nothing follows for new people, as subjects are unknown"
    counts = f"{len(np.unique(cal))} calibrate, {len(np.unique(test))} test"
    return f"nothing follows for new people ({counts})"


def uniformity_text(v: Analysis) -> str:
    h, verdict = v.histogram, "**compatible with uniform**"
    if h.p < MAX_UNIFORMITY_P:
        verdict = "not uniform: calibration and test points are **not exchangeable**"
    return (
        f"Largest distance from uniform {h.distance:.3f}; a valid predictor is so far off with "
        f"probability {h.p:.3g}. The p-values are {verdict}."
    )


def worst_curve_text(curves: tuple[ErrorCurve, ...], what: str, eps: float) -> str:
    """How many curves leave their own bands, over all ε and at the one that is marked."""
    if not curves:
        return f"No {what} has enough test points for a curve."
    out = [c for c in curves if c.above or c.below]
    if not out:
        return f"All {len(curves)} curves stay inside their own bands, at every ε."
    at = int(np.abs(validity.EPS_LEVELS - eps).argmin())
    marked = sum(c.error[at] > c.upper[at] or c.error[at] < c.lower[at] for c in curves)
    most = max(out, key=lambda c: max(c.above, c.below))
    return (
        f"At some ε or other, {len(out)} of {len(curves)} curves leave the band for their number "
        f"of points. At ε = {eps:g} alone, which the marks at the right show, {marked} do. "
        f"*{most.name}* is furthest out: it {band_exit_text(most)}."
    )


def exchangeability_text(v: Analysis) -> str:
    """How validity differs between new people and random splits of the test points."""
    p, reference = v.problem, v.reference
    draws, left = len(reference.error), round(reference.left * len(reference.error))
    if p.subject_cal is None or p.subject_test is None:
        people = "Subjects are unknown here: the same people may be in both sets."
    else:
        cal, test = map(calibration.known_subjects, (p.subject_cal, p.subject_test))
        shared = len(cal & test)
        both = f"{shared} are in both." if shared else "**none is in both**."
        people = f"{len(cal)} subjects calibrate, {len(test)} are tested, {both}"
    return (
        f"{people} From calibration set to test set, compared with its band, the error curve "
        f"{band_exit_text(v.overall)}. Of {draws} random splits of the test points themselves, "
        f"{left} leave their band somewhere; 5 % are expected to."
    )


def criteria_rows(v: Analysis) -> list[dict[str, str]]:
    """The table of criteria: name, value, meaning."""
    values = {k: "–" if np.isnan(x) else f"{x:.3f}" for k, x in v.criteria.items()}
    return [
        {"criterion": k, "value": x, "what it means": validity.CRITERIA[k]}
        for k, x in values.items()
    ]
