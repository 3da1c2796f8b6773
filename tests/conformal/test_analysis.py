"""Conformal analysis: equal to its parts, uploads checked, exports complete."""

import csv
import io
import json
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import files
from core.config.settings import Config
from core.conformal import analysis, calibration, prediction, validity
from core.conformal.calibration import CalibrationData
from core.runs import store
from tests.support.trained_runs import SHIPPED

CLASSES = ("happy", "sad", "angry")


def problem(n=90, m=120, seed=0, shift=0.0) -> CalibrationData:
    """A classifier that is good on its calibration subjects and worse on shifted new ones."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n + m)
    z = rng.normal(size=(n + m, 3)) + 2 * np.eye(3)[labels]
    z[n:] -= shift * np.eye(3)[labels[n:]]
    o = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    who = np.array([f"a{i % 3}" for i in range(n)] + [f"b{i % 4}" for i in range(m)])
    return CalibrationData("toy", CLASSES, o[:n], labels[:n], o[n:], labels[n:], who[:n], who[n:])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that has got as far as its classifiers, faces and voices."""
    monkeypatch.setenv("DACSSGAN_CHECKPOINTS", str(tmp_path))
    config = Config(
        name="toy",
        data=replace(Config().data, classes=CLASSES),
        conformal=replace(Config().conformal, groups="class", r=0.5),
    )
    made = store.create(tmp_path / "toy-cp-00000000", config)
    face, voice, rows = problem(), problem(seed=1), np.arange(0, 90, 2)
    arrays = {"calibration": rows}
    for infix, q in (("", face), ("voice_", voice)):
        arrays |= {
            f"o_{infix}S2": q.o_cal,
            f"label_{infix}S2": q.label_cal,
            f"subject_{infix}S2": q.subject_cal,
        }
        arrays |= {
            f"o_{infix}S4": q.o_test,
            f"label_{infix}S4": q.label_test,
            f"subject_{infix}S4": q.subject_test,
        }
    files.write_arrays(made.directory / "outputs.npz", **arrays)
    return made


@pytest.mark.parametrize("groups", ["pooled", "class"])
@pytest.mark.parametrize("measure", ["margin", "hinge"])
def test_a_view_is_the_predictor_and_its_curves(groups, measure):
    q = problem()
    v = analysis.analyse_outputs(q, measure, groups, eps=0.07)
    assert np.array_equal(
        v.p, prediction.inductive_p_values(q.o_cal, q.label_cal, q.o_test, measure, groups)
    )
    assert np.array_equal(v.sets, v.p > 0.07)
    assert np.array_equal(
        v.overall.error, validity.error_curve(prediction.true_scores(v.p, q.label_test))
    )
    n_k = np.bincount(q.label_cal) if groups == "class" else 90
    assert np.array_equal(v.floor, np.broadcast_to(1 / (n_k + 1), 3))
    assert (v.n, v.m, [c.name for c in v.by_class], [c.name for c in v.by_subject]) == (
        90,
        120,
        list(CLASSES),
        ["b0", "b1", "b2", "b3"],
    )
    assert sum(c.m for c in v.by_class) == sum(c.m for c in v.by_subject) == 120
    assert np.allclose(sum(c.m * c.error for c in v.by_subject), 120 * v.overall.error)
    assert v.criteria["error"] == pytest.approx(v.overall.error[7])
    assert v.sizes.error[-1].max() == pytest.approx(v.criteria["error"])
    assert v.by_class[0].n == (n_k[0] if groups == "class" else 90)


def test_share_smoothing_and_seed():
    q = problem()
    half, again, other = (
        analysis.analyse_outputs(q, r=0.5, smoothed=True, seed=s) for s in (0, 0, 1)
    )
    assert half.n == 45
    assert analysis.to_json(half) == analysis.to_json(again) != analysis.to_json(other)
    assert np.array_equal(half.p, again.p)
    plain = analysis.analyse_outputs(q, r=0.5)
    assert (half.p <= plain.p).all()
    assert (half.p < plain.p).any()
    assert (
        plain.histogram.distance == half.histogram.distance
    )  # the uniformity test is always of smoothed p-values
    assert set(np.unique(plain.p * 46).round(9)) <= set(range(1, 47))


def test_new_subjects_are_told_from_exchangeable_ones():
    fair, unfair = (
        analysis.analyse_outputs(problem(m=400)),
        analysis.analyse_outputs(problem(m=400, shift=1.2)),
    )
    assert (fair.overall.above, unfair.overall.above > 0.1) == (0, True)
    assert fair.histogram.p > 0.05 > 0.01 > unfair.histogram.p
    assert unfair.reference.left <= 0.25  # the same points, split at random, keep the promise
    assert all(c.above > 0 for c in unfair.by_subject)
    assert "All 4 test subjects are new since calibration (3 subjects)" in unfair.notes[0]


def test_notes_name_what_a_reader_must_know():
    q = problem()
    no_sad = q.label_cal != 1
    part = replace(
        q, o_cal=q.o_cal[no_sad], label_cal=q.label_cal[no_sad], subject_cal=None, subject_test=None
    )
    v = analysis.analyse_outputs(part, groups="class", eps=0.02)
    assert "No calibration point is sad" in v.notes[0]
    assert "happy, angry never can be rejected" in v.notes[1]
    assert "Subjects are unknown" in v.notes[2]
    assert (v.p[:, 1] == 1).all()
    assert v.by_subject == ()
    few = analysis.analyse_outputs(replace(q, subject_test=np.arange(120).astype(str)))
    assert "No subject has 20 test points" in few.notes[1]
    assert (
        analysis.analyse_outputs(replace(q, subject_test=q.subject_cal[np.arange(120) % 90])).notes
        == ()
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"r": 0},
        {"r": 1.5},
        {"eps": 0},
        {"eps": 1},
        {"groups": "sex"},
        {"measure": "other"},
        {"eps": np.nan},
    ],
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="r is|groups|measure"):
        analysis.analyse_outputs(problem(), **bad)


def test_exports():
    q = problem()
    v = analysis.analyse_outputs(
        replace(
            q, o_test=q.o_test[:30], label_test=q.label_test[:30], subject_test=q.subject_test[:30]
        ),
        eps=0.25,
    )
    facts = json.loads(
        analysis.to_json(v), parse_constant=lambda c: pytest.fail(f"{c} is not JSON")
    )
    assert facts["classes"] == list(CLASSES)
    assert facts["overall"]["error"] == v.overall.error.tolist()
    assert (facts["eps"], facts["criteria"]["N"], facts["n"]) == (0.25, v.criteria["N"], 90)
    assert len(facts["sizes"]["error"]) == len(analysis.CALIBRATION_SHARES)
    rows = list(csv.DictReader(io.StringIO(analysis.to_csv(v))))
    assert len(rows) == 30
    assert rows[3]["label"] == CLASSES[q.label_test[3]]
    assert [float(rows[3][f"p {c}"]) for c in CLASSES] == pytest.approx(v.p[3], rel=1e-5)
    assert rows[3]["set at eps 0.25"].split() == [c for c, kept in zip(CLASSES, v.sets[3]) if kept]


def test_a_runs_faces_and_voices(run):
    q = calibration.data_from_run(run)
    assert (len(q.label_cal), len(q.label_test), q.classes) == (45, 120, CLASSES)
    assert np.array_equal(q.o_cal, problem().o_cal[::2])
    assert len(calibration.data_from_run(run, "voice").label_cal) == 90
    text = analysis.run_report("toy")
    assert "class, unsmoothed" in text  # as the run itself was made
    assert "| b3 | 30 |" in text
    assert "voices (f_T)" in analysis.run_report(
        "toy", modality="voice", measure="hinge", groups="pooled", eps=0.05, smoothed=True
    )
    assert json.loads(analysis.run_report("toy", as_json=True, r=0.5))["n"] == 22
    with pytest.raises(ValueError, match="modality"):
        calibration.data_from_run(run, "smell")  # type: ignore[arg-type]


def test_a_run_without_voices_says_so_and_images_are_no_subjects(run):
    arrays = {k: v for k, v in run.arrays().items() if "voice" not in k}
    arrays["subject_S4"] = np.array([f"image-{i:05d}" for i in range(120)])
    files.write_arrays(run.directory / "outputs.npz", **arrays)
    with pytest.raises(
        ValueError, match=r"outputs.npz has no voice outputs.*look at its faces instead"
    ):
        calibration.data_from_run(run, "voice")
    assert calibration.data_from_run(run).subject_test is None
    (run.directory / "outputs.npz").unlink()
    with pytest.raises(ValueError, match="let its training"):
        calibration.data_from_run(run)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda p: p.name)
def test_a_shipped_runs_view_has_the_p_values_that_g_was_told(folder):
    shipped = store.Run(folder)
    try:
        own = shipped.config.conformal
    except ValueError as e:
        pytest.skip(f"test_shipped says it too: {e}")
    given = "face" if shipped.config.gan.direction == "face-voice" else "voice"
    v = analysis.analyse_outputs(calibration.data_from_run(shipped, given), own.measure, own.groups)
    assert np.array_equal(v.p, shipped.arrays()["p_S4"])
    assert v.overall.above < 0.1


def npz(**changes) -> bytes:
    q, out = problem(), io.BytesIO()
    parts = {
        "cal_softmax": q.o_cal,
        "cal_labels": q.label_cal,
        "test_softmax": q.o_test,
        "test_labels": q.label_test,
    }
    parts |= {
        "classes": np.array(CLASSES),
        "cal_subjects": q.subject_cal,
        "test_subjects": q.subject_test,
    }
    np.savez_compressed(out, **{k: v for k, v in (parts | changes).items() if v is not None})
    return out.getvalue()


def text(edit=lambda lines: lines, delimiter=",", named=True, subject=True) -> bytes:
    q, lines = problem(), [["set", "label", *CLASSES, *(["subject"] if subject else [])]]
    for part, o, label, who in (
        ("cal", q.o_cal, q.label_cal, q.subject_cal),
        ("test", q.o_test, q.label_test, q.subject_test),
    ):
        for row, t, s in zip(o, label, who):
            lines.append(
                [
                    part,
                    CLASSES[t] if named else str(t),
                    *map(repr, row.tolist()),
                    *([s] if subject else []),
                ]
            )
    return "\r\n".join(delimiter.join(line) for line in edit(lines)).encode()


@pytest.mark.parametrize(
    "data",
    [
        npz(),
        text(),
        text(delimiter=";", named=False),
        b"\xef\xbb\xbf" + text(delimiter="\t") + b"\n\n",
        npz(cal_labels=np.array(CLASSES)[problem().label_cal]),
        npz(
            test_labels=problem().label_test.astype(float),
            cal_labels=problem().label_cal.astype(np.uint8),
        ),
    ],
)
def test_uploads_come_back_whole(data):
    q, found = problem(), calibration.data_from_upload("../over/here.npz", data)
    assert (found.name, found.classes) == ("here.npz", CLASSES)
    for field in ("o_cal", "label_cal", "o_test", "label_test", "subject_cal", "subject_test"):
        assert np.array_equal(getattr(found, field), getattr(q, field)), field
    analysis.analyse_outputs(found)


def test_what_is_optional_may_be_missing():
    found = calibration.data_from_upload(
        "x", npz(classes=None, cal_subjects=None, test_subjects=None)
    )
    assert (found.classes, found.subject_cal) == (("0", "1", "2"), None)
    assert calibration.data_from_upload("x", text(subject=False)).subject_test is None


ZEROS = np.zeros((2_000_000, 6))
SOFT = problem().o_cal


def first(value, column):
    def edit(lines):
        lines[4][column] = value
        return lines

    return edit


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "first line must name"),
        (b"\xff\xfe\x00nonsense", "neither an npz file nor text"),
        (b"PK\x03\x04 not a zip", "cannot be read as an npz"),
        (npz()[:-200], "cannot be read as an npz"),
        (npz(cal_softmax=None), "has no cal_softmax"),
        (npz(cal_softmax=ZEROS), "unpacks to 91 MB"),
        (npz(cal_softmax=ZEROS.astype(np.int8)), r"cal_softmax \(2000000, 6\) is too large"),
        (npz(cal_subjects=np.zeros(600_000, np.int8)), "cal_subjects .* too large"),
        (npz(cal_softmax=SOFT[:, 0]), r"cal_softmax must be \(rows, "),
        (npz(test_softmax=problem().o_test[:, :2]), r"test_softmax must be \(rows, 3\)"),
        (npz(cal_labels=problem().label_cal[:5]), r"cal_labels must be \(90,\)"),
        (npz(test_subjects=np.array(["a"])), r"test_subjects must be \(120,\)"),
        (
            npz(cal_softmax=np.log(SOFT)),
            r"90 row\(s\) of cal_softmax are not probabilities.* row 0 \(sum -",
        ),
        (
            npz(cal_softmax=SOFT + np.eye(90, 3, -7) * 0.01),
            r"3 row\(s\) .*: row 7 \(sum 1.01.* 8 .* 9 ",
        ),
        (
            npz(cal_softmax=np.where(np.arange(270).reshape(90, 3) == 10, np.nan, SOFT)),
            r"1 row\(s\) .* row 3 \(sum nan",
        ),
        (
            npz(cal_labels=problem().label_cal + 1),
            r"cal_labels must be whole numbers from 0 to 2 .*not \[3",
        ),
        (npz(cal_labels=problem().label_cal + 0.5), "whole numbers"),
        (npz(cal_labels=np.array(["joy"] * 90)), r"cal_labels holds \['joy'\], which is no class"),
        (
            npz(cal_softmax=np.zeros((0, 3)), cal_labels=np.zeros(0, int), cal_subjects=None),
            "no cal row",
        ),
        (npz(classes=np.array(["a", "a", "b"])), "named differently"),
        (npz(classes=np.array("abc")), "list of names"),
        (npz(cal_labels=np.array([None] * 90)), "only numbers and text"),
        (npz(cal_softmax=SOFT.astype(str)), "holds text"),
        (npz(cal_softmax=SOFT.astype(complex)), "only numbers and text"),
        (text(lambda lines: lines[:1]), "no cal row"),
        (text(lambda lines: [line for line in lines if line[0] != "test"]), "no test row"),
        (text(lambda lines: [line[1:] for line in lines]), "first line must name"),
        (text(first("train", 0)), "line 5: set is 'train'"),
        (text(first("joy", 1)), r"cal_labels holds \['joy'\]"),
        (text(first("often", 2)), "line 5: could not convert"),
        (text(first("nan", 2)), r"row 3 \(sum nan"),
        (text(first("0.5,0.5", 2)), "line 5: 7 values for 6 columns"),
        (text(first("x" * 200_000, 1)), "line 5: field larger than"),
    ],
)
def test_uploads_that_cannot_be_used_are_refused_in_words(data, words):
    with pytest.raises(ValueError, match=words):
        calibration.data_from_upload("mine", data)


def forged(header: bytes, stated: int = 200) -> bytes:
    """An npz whose cal_softmax has this header and little else."""
    out = io.BytesIO(npz())
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(
            "cal_softmax",
            b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\x00" * stated,
        )
    return out.getvalue()


def test_bombs_are_refused_before_they_are_unpacked():
    giant = b"{'descr': '<f8', 'fortran_order': False, 'shape': (400000000, 6), }\n"
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="promises more values than it holds"):
            calibration.data_from_upload("mine", forged(giant))
        data = npz(cal_softmax=ZEROS)
        tracemalloc.reset_peak()
        with pytest.raises(ValueError, match="unpacks to"):
            calibration.data_from_upload("mine", data)
        assert tracemalloc.get_traced_memory()[1] < 5e6 + len(data)
    finally:
        tracemalloc.stop()
    assert len(data) < 1e6
    with pytest.raises(ValueError, match="more than 64 MB"):
        calibration.data_from_upload("mine", bytes(calibration.MAX_UPLOAD_BYTES + (1 << 20)))


@settings(max_examples=150)
@given(st.data())
def test_damaged_uploads_raise_nothing_but_words(data):
    whole = bytearray(
        data.draw(
            st.sampled_from(
                [
                    npz(),
                    text(),
                    forged(b"{'descr': '<f8', 'fortran_order': False, 'shape': (3, 6), }\n"),
                ]
            )
        )
    )
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    message = "mine"
    try:
        calibration.data_from_upload("mine", bytes(whole))
    except ValueError as e:
        message = str(e)
    assert message.startswith("mine")
