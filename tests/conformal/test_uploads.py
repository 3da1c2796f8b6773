"""Uploaded outputs from any program: read rightly, or refused with the column and the fix."""

import io
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from core.conformal import analysis, calibration, uploads
from core.files import UserError

NAMES = ("cat", "dog", "fox")


def outputs(n=60, K=3, seed=0):
    """Probabilities (n, K), rounded as a file has them, and labels that they mostly name."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, K, n)
    z = rng.standard_normal((n, K)) + 2 * np.eye(K)[label]
    return np.round(np.exp(z) / np.exp(z).sum(1, keepdims=True), 6), label


def table(names=NAMES, more=None, labels=None, subjects=None, delimiter=",", before=False, n=60):
    """A csv: the first half calibrates; `more` is (name, values) of one more column."""
    o, label = outputs(n, len(names))
    columns = [("set", ["cal"] * (n // 2) + ["test"] * (n - n // 2))]
    columns += [("label", labels if labels is not None else [names[k] for k in label])]
    columns += [(c, o[:, k].tolist()) for k, c in enumerate(names)]
    columns += [("subject", subjects)] if subjects is not None else []
    columns = [more, *columns] if before and more else [*columns, *([more] if more else [])]
    rows = zip(*(values for _, values in columns))
    lines = [delimiter.join(c for c, _ in columns)]
    lines += [delimiter.join(map(str, row)) for row in rows]
    return "\n".join(lines)


def read(text, encoding="utf-8"):
    return calibration.data_from_upload("mine.csv", text.encode(encoding))


def same_as_plain(found, names=NAMES):
    o, label = outputs(60, len(names))
    assert np.array_equal(np.concatenate([found.o_cal, found.o_test]), o)
    assert np.array_equal(np.concatenate([found.label_cal, found.label_test]), label)
    assert found.classes == tuple(names)


def npz(**parts):
    file = io.BytesIO()
    np.savez(file, **parts)
    return file.getvalue()


def arrays(labels, **more):
    o, _ = outputs()
    soft = {"cal_softmax": o[:30], "test_softmax": o[30:]}
    return npz(**soft, cal_labels=labels[:30], test_labels=labels[30:], **more)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_every_unicode_encoding_is_read(encoding):
    same_as_plain(read(table(), encoding))


def test_the_delimiter_may_be_named_and_the_comma_decimal():
    german = table(delimiter=";").replace(".", ",")
    same_as_plain(read(german))
    same_as_plain(read(f"sep=;\r\n{german}"))
    same_as_plain(read(table(delimiter="|")))
    same_as_plain(read(f"\n\n{table()}"))
    same_as_plain(read(f'"sep=\t"\n{table(delimiter=chr(9)).replace(".", ",")}'))


def test_latin_1_is_refused_with_the_byte_its_line_and_the_fix():
    text = table(("cat", "dog", "wölf"))
    message = r"text in UTF-8 \(byte 0xf6 in line 1; it may be Latin-1\); save it as 'CSV UTF-8'"
    with pytest.raises(UserError, match=message):
        read(text, "latin-1")


def test_a_spreadsheet_is_called_one():
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        z.writestr("[Content_Types].xml", "")
        z.writestr("xl/workbook.xml", "")
    for data in (file.getvalue(), b"\xd0\xcf\x11\xe0" + bytes(100)):
        with pytest.raises(UserError, match="is a spreadsheet; save it as 'CSV UTF-8'"):
            calibration.data_from_upload("mine.xlsx", data)


def test_unicode_forms_of_a_name_are_one_name():
    names = ("cat", "dog", "wölf")
    text = table(names, subjects=[("Zoë", "Zoë")[i % 2] for i in range(60)])
    head, rest = unicodedata.normalize("NFC", text).split("\n", 1)
    found = read(f"{head}\n{unicodedata.normalize('NFD', rest)}")
    same_as_plain(found, names)
    assert set(found.subject_cal) == {unicodedata.normalize("NFC", "Zoë")}


@pytest.mark.parametrize("header", ["", "Unnamed: 0"])
def test_an_unnamed_index_is_passed_over(header):
    same_as_plain(read(table(more=(header, range(60)), before=True)))
    same_as_plain(read(table(more=(header, range(60)))))


def test_row_names_without_a_header_are_passed_over():
    head, *rows = table().split("\n")
    same_as_plain(read("\n".join([head, *(f"r{i},{row}" for i, row in enumerate(rows))])))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("index", range(60)),
        ("fold", [i % 5 for i in range(60)]),
        ("is_female", [i % 2 for i in range(60)]),
        ("age", [20 + i % 9 for i in range(60)]),
        ("image", [f"img_{i}.jpg" for i in range(60)]),
        ("spare", [0] * 60),
    ],
)
def test_a_column_that_is_no_class_is_named(column, values, before):
    with pytest.raises(UserError, match=rf"\b{column}\b.*[Rr]emove"):
        read(table(more=(column, values), before=before))


def test_two_columns_that_are_no_classes_are_named():
    head, *rows = table(more=("fold", [i % 2 for i in range(60)])).split("\n")
    rows = [f"{row},0.{i % 9}" for i, row in enumerate(rows)]
    with pytest.raises(UserError, match="the columns fold, entropy cannot be a class"):
        read("\n".join([f"{head},entropy", *rows]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda o: 3 * o - 1, "give the softmax, not the logits"),
        (lambda o: np.log(o), "look like logarithms: give their exponentials"),
        (lambda o: 100 * o, "look like percent: divide them by 100"),
        (lambda o: o.round(2), "look rounded: write them with more digits"),
        (
            lambda o: np.where(o == o.max(), np.nan, o),
            "remove the rows in which a number is missing",
        ),
    ],
)
def test_why_rows_are_no_probabilities_is_told_truly(change, words):
    o, label = outputs()
    o = change(o)
    parts = {"cal_softmax": o, "cal_labels": label, "test_softmax": o, "test_labels": label}
    with pytest.raises(UserError, match=words):
        calibration.data_from_upload("x", npz(**parts))


@pytest.mark.parametrize(
    "data", [b"\x93NUMPY\1\0", b"\x1f\x8b\x08\0" + b"\xb5" * 99, b"PAR1" + bytes(99), b"\x80\4K\1."]
)
def test_a_file_that_is_no_text_is_not_called_latin_1(data):
    with pytest.raises(UserError, match="neither an npz file nor text; write it with np.savez"):
        calibration.data_from_upload("outputs", data)


def test_subjects_that_are_numbers_are_the_same_with_and_without_a_missing_one():
    _, label = outputs()
    who = np.arange(30) % 6
    known = np.where(who == 5, np.nan, who)  # floats, as one is missing
    found = calibration.data_from_upload("x", arrays(label, cal_subjects=known, test_subjects=who))
    assert calibration.known_subjects(found.subject_cal) == set("01234")
    assert calibration.known_subjects(found.subject_test) == set("012345")


@pytest.mark.parametrize("kind", [int, float, str, np.int8])
@pytest.mark.parametrize("order", [(2, 0, 1), (0, 1, 2), (1, 2, 3), (10, 20, 30), (-1, 0, 1)])
def test_where_classes_are_numbers_labels_are_these_numbers(order, kind):
    _, label = outputs()
    classes = np.array(order)
    labels = classes[label].astype(kind)
    found = calibration.data_from_upload("x", arrays(labels, classes=classes))
    assert np.array_equal(np.concatenate([found.label_cal, found.label_test]), label)
    assert found.classes == tuple(map(str, order))
    names = tuple(map(str, order))
    same_as_plain(read(table(names, labels=labels.tolist())), names)


def test_one_number_written_in_two_ways_is_no_two_classes():
    _, label = outputs()
    with pytest.raises(UserError, match="two classes are the same number.*: 1, 01, x; rename one"):
        calibration.data_from_upload("x", arrays(label, classes=np.array(["1", "01", "x"])))


def test_where_classes_are_words_numbers_are_places():
    _, label = outputs()
    for labels in (label, label.astype(float), label.astype(str)):
        found = calibration.data_from_upload("x", arrays(labels, classes=np.array(NAMES)))
        assert np.array_equal(found.label_cal, label[:30])
    mixed = np.where(label == 0, "cat", label.astype(str))
    with pytest.raises(UserError, match=r"holds \['1', '2'\], which is no class"):
        calibration.data_from_upload("x", arrays(mixed, classes=np.array(NAMES)))


def test_labels_that_count_from_one_are_refused():
    _, label = outputs()
    with pytest.raises(UserError, match="counted from 1: subtract 1"):
        calibration.data_from_upload("x", arrays(label + 1))
    label = np.where(label == 2, 0, label)  # the last class does not occur
    o, _ = outputs()
    o = o[:, [0, 1, 2]]
    with pytest.raises(UserError, match="look counted from 1"):
        calibration.data_from_upload("x", arrays(label + 1))
    with pytest.raises(UserError, match="counted from 1"):
        read(table(labels=(label + 1).tolist()))


def test_a_zero_column_is_refused_by_name_in_an_npz_too():
    o, label = outputs()
    o = np.hstack([o, np.zeros((60, 1))])
    parts = {"cal_softmax": o[:30], "test_softmax": o[30:]}
    data = npz(**parts, cal_labels=label[:30], test_labels=label[30:])
    with pytest.raises(UserError, match="the column 3 is zero in each row"):
        calibration.data_from_upload("x", data)


def test_blank_subjects_are_unknown_and_no_person():
    subjects = ["anna", "", "ben", " ", "nan"] * 12
    found = read(table(subjects=subjects))
    assert calibration.known_subjects(found.subject_cal) == {"anna", "ben"}
    assert len(set(found.subject_cal)) == 2 + 30 - 12
    notes = analysis.analyse_outputs(found).notes
    assert not any("All " in note for note in notes)  # anna and ben are in both parts
    assert read(table(subjects=[""] * 60)).subject_test is None


def test_people_called_image_are_people_and_groups_of_near_duplicates_are_none():
    people = [f"image-{i % 5}" for i in range(60)]
    found = read(table(subjects=people))
    assert len(calibration.known_subjects(found.subject_cal)) == 5
    assert read(table(subjects=[f"image-{i % 5:05d}" for i in range(60)])).subject_cal is None


@pytest.mark.parametrize(
    "names", [("cat", "", "dog"), ("cat", "cat ", "dog"), ("é", "e\u0301", "b")]
)
def test_classes_without_names_of_their_own_are_refused(names):
    _, label = outputs()
    with pytest.raises(UserError, match="all named differently"):
        calibration.data_from_upload("x", arrays(label, classes=np.array(names)))


def test_notes_stay_short_with_many_classes():
    K = 1000
    rng = np.random.default_rng(0)
    o = rng.dirichlet(np.ones(K), 40)
    data = calibration.CalibrationData(
        "many", tuple(map(str, range(K))), o[:20], np.zeros(20, int), o[20:], np.ones(20, int)
    )
    notes = analysis.analyse_outputs(data).notes
    assert "and 991 more" in notes[0]
    assert max(map(len, notes)) < 300


def test_one_calibration_point_rejects_no_label_at_all():
    o, label = outputs()
    data = calibration.CalibrationData("one", NAMES, o[:1], label[:1], o[1:], label[1:])
    notes = " ".join(analysis.analyse_outputs(data).notes)
    assert "No label can be rejected" in notes
    assert "never" not in notes


def test_the_handed_files(request):
    cases = Path(__file__).resolve().parents[3] / "shared" / "cases"
    if not cases.is_dir():
        pytest.skip("no handed cases here: ../shared/cases is absent")

    def load(path):
        return calibration.data_from_upload(path.name, path.read_bytes())

    for name, column in (("extra-fold", "fold"), ("extra-id", "image")):
        with pytest.raises(UserError, match=column):
            load(cases / "conformal-extra-column" / f"{name}.csv")
    for name in ("pandas-index", "r-rownames"):
        assert load(cases / "conformal-extra-column" / f"{name}.csv").classes == NAMES
    found = load(cases / "conformal-labels-are-values" / "classes-ints-permuted.npz")
    assert (found.o_test.argmax(1) == found.label_test).mean() > 0.6
    one = load(cases / "conformal-small-and-many" / "cal1.csv")
    assert "No label can be rejected" in " ".join(analysis.analyse_outputs(one).notes)
    many = load(cases / "subjects-merged" / "long-subjects.csv")
    counted = [len(calibration.known_subjects(s)) for s in (many.subject_cal, many.subject_test)]
    assert counted == [10, 15]


# ------------------------------------------------------------------ many rows and classes


def many(n=300, m=400, K=3, **more):
    """An npz of n calibration and m test points of K classes."""
    o, label = outputs(n + m, K)
    o /= o.sum(axis=1, keepdims=True)
    file = io.BytesIO()
    arrays = {"cal_softmax": o[:n], "cal_labels": label[:n]}
    np.savez(file, test_softmax=o[n:], test_labels=label[n:], **arrays, **more)
    return file.getvalue(), o, label


def test_of_many_rows_a_random_sample_is_analysed_and_that_is_said(monkeypatch):
    subjects = {"cal_subjects": [f"a{i}" for i in range(300)]}
    subjects |= {"test_subjects": [f"b{i}" for i in range(400)]}
    data, o, label = many(**subjects)
    monkeypatch.setattr(calibration, "MAX_ANALYSED_ROWS", 350)
    few = calibration.data_from_upload("mine", data)
    assert (len(few.o_cal), len(few.o_test)) == (300, 350)
    rows = few.row_test
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(few.o_test, o[300 + rows])
    assert np.array_equal(few.label_test, label[300 + rows])
    assert few.subject_test.tolist() == [f"b{i}" for i in rows]
    assert np.array_equal(calibration.data_from_upload("mine", data).row_test, rows)
    view = analysis.analyse_outputs(few)
    assert "350 of 400 test points" in view.notes[0]
    written = [line.split(",")[0] for line in analysis.to_csv(view).splitlines()[1:]]
    assert written == [str(i) for i in rows]  # the upload's own
    monkeypatch.setattr(calibration, "MAX_ANALYSED_CELLS", 3 * 100)
    both = calibration.data_from_upload("mine", data).note
    assert "100 of 300 calibration points and 100 of 400 test points" in both


def test_a_small_upload_is_analysed_whole():
    whole = calibration.data_from_upload("mine", many()[0])
    assert (len(whole.o_test), whole.note, whole.row_test) == (400, "", None)


def test_more_classes_than_a_view_can_show_in_time_are_refused():
    names = [f"k{i}" for i in range(uploads.MAX_UPLOAD_CLASSES + 1)]
    with pytest.raises(UserError, match=r"1,001 classes; the limit is 1,000 classes"):
        read(",".join(["set", "label", *names]) + "\n")
    o = np.full((2, len(names)), 1 / len(names))
    file = io.BytesIO()
    np.savez(file, cal_softmax=o, cal_labels=[0, 1], test_softmax=o, test_labels=[0, 1])
    with pytest.raises(UserError, match="1,001 classes"):
        calibration.data_from_upload("mine", file.getvalue())


@pytest.mark.parametrize(("limit", "value"), [("MAX_UPLOAD_ROWS", 10), ("MAX_UPLOAD_CELLS", 30)])
def test_rows_are_counted_while_they_are_read(monkeypatch, limit, value):
    monkeypatch.setattr(uploads, limit, value)
    with pytest.raises(UserError, match=r"line 12: the file is too large; the limit is"):
        read(table())


def test_a_column_that_is_no_class_is_found_among_many_at_once():
    o, label = outputs(40, 400)
    o /= o.sum(axis=1, keepdims=True)
    lines = [",".join(["set", "label", *(f"k{i}" for i in range(400)), "row"])]
    for i, (row, k) in enumerate(zip(o, label)):
        lines.append(",".join(["cal" if i % 2 else "test", f"k{k}", *map(str, row), str(i / 100)]))
    start = time.process_time()
    with pytest.raises(UserError, match="the column row cannot be a class"):
        read("\n".join(lines))
    assert time.process_time() - start < 5


def test_a_thousand_classes_are_analysed_by_class_in_time():
    """Each class is a group of its own; a page shows the 40 with the most points."""
    data = calibration.data_from_upload("mine", many(1_000, 1_000, 1_000)[0])
    start = time.process_time()
    view = analysis.analyse_outputs(data, groups="class")
    assert time.process_time() - start < 10
    assert len(view.by_class) == analysis.MAX_CURVES
    assert any("classes the 40 with the most points" in note for note in view.notes)
    most = np.sort(np.bincount(data.label_test))[::-1][: analysis.MAX_CURVES]
    assert sorted((c.m for c in view.by_class), reverse=True) == most.tolist()
