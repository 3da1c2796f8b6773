"""§4.1: own data in a csv table: encodings, delimiters, names of files, and what is refused."""

import unicodedata
import zipfile
from pathlib import Path

import pytest

from core.data.checks import doctor
from core.data.corpora import CorpusError
from core.data.sources import indexing
from tests.support.file_trees import write_files


def table(root: Path, text: str, name="clips.csv", encoding="utf-8") -> Path:
    write_files(root, ["a.mp4", "a.wav", "face é.jpg", "sub/b.wav"])
    (root / name).write_bytes(text.encode(encoding))
    return root / name


GOOD = (
    "path,subject,label,clip,audio,sex\na.mp4,ann,Happy,one,,F\na.wav,ann,joy,one,,\n"
    "face é.jpg,bob,sad,two,sub\\b.wav,male\n"
)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GOOD, "utf-8"),
        (GOOD.replace(",", ";").replace("\n", "\r\n") + ";;;;;\r\n\r\n", "utf-8-sig"),
        (GOOD.replace(",", "\t"), "utf-16"),
        (GOOD.replace("clip,", "Clip ID ,").replace("path", "PATH"), "utf-8"),
    ],
)
def test_own_table(tmp_path, text, encoding):
    one, two = indexing.index_clips("mine", table(tmp_path / "t", text, encoding=encoding))
    here = tmp_path / "t"
    assert (one.clip, one.subject, one.sex, one.emotion, one.crop) == (
        "one",
        "ann",
        "female",
        "happy",
        False,
    )
    assert (one.video, one.audio) == (str(here / "a.mp4"), str(here / "a.wav"))
    assert (two.clip, two.subject, two.sex, two.emotion, two.crop) == (
        "two",
        "bob",
        "male",
        "sad",
        True,
    )
    assert (two.video, two.audio) == (str(here / "face é.jpg"), str(here / "sub" / "b.wav"))


def test_own_table_reaches_out_of_its_folder(tmp_path):
    write_files(tmp_path, ["x/film.mp4"])
    (entry,) = indexing.index_clips(
        "mine", table(tmp_path / "t", "path,subject,label,clip\n../x/film.mp4,,ang,one\n")
    )
    assert entry.video == entry.audio  # a film brings its sound
    assert Path(entry.video).samefile(tmp_path / "x" / "film.mp4")
    assert entry.subject == ""


def test_a_subjects_sex_need_be_said_but_once(tmp_path):
    text = "path,subject,label,clip,sex\na.wav,ann,sad,1,\nsub/b.wav,ann,sad,2,w\na.mp4,,sad,3,\n"
    assert [e.sex for e in indexing.index_clips("mine", table(tmp_path, text))] == [
        "female",
        "female",
        "",
    ]


HEAD = "path,subject,label,clip\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "path,label\na.wav,sad\n",
            "has no column subject nor clip; its first line must name path, subject, label, clip",
        ),
        ("path,subject,label,clip,Label\n", "two columns label"),
        ("", "has no column path"),
        (HEAD, "no rows"),
        (
            HEAD + "a.wav,ann,contempt,1\n",
            r"line 2: unknown emotion 'contempt'; known are neutral \(neu\)",
        ),
        (
            HEAD + "a.wav,ann,3,1\n",
            "unknown emotion '3': numbers name other emotions in every corpus",
        ),
        (HEAD + "a.wav,ann,,1\n", "unknown emotion ''"),
        (HEAD + "a.wav,ann,sad,\n", "line 2: the clip id is empty"),
        (HEAD + ",ann,sad,1\n", "line 2: the path is empty"),
        (HEAD + "a.txt,ann,sad,1\n", r"a\.txt is no path that can be read; files end in \.jpg"),
        (
            "audio," + HEAD + "face é.jpg,a.wav,ann,sad,1\n",
            r"face é\.jpg is no audio that can be read; files end in \.flv",
        ),
        (
            HEAD + "a.wav,ann,sad,1\na.mp4,bob,sad,1\n",
            "line 3: clip 1 has two values of subject: ann and bob",
        ),
        (
            HEAD + "a.wav,ann,sad,1\na.mp4,ann,fear,1\n",
            "line 3: clip 1 has two values of label: sad and fear",
        ),
        (HEAD + "a.wav,ann,sad,1\nsub/b.wav,ann,sad,1\n", "two values of audio"),
        (
            HEAD + "".join(f"{i}.wav,ann,sad,{i}\n" for i in range(7)),
            r"7 files are not there.*0\.wav \(line 2\).*4\.wav \(line 6\)$",
        ),
        (HEAD + "a.wav,ann,sad,1,extra\n", "line 2: more fields than the header"),
        ("sex," + HEAD + "x,a.wav,ann,sad,1\n", "line 2: sex is 'x'"),
        (
            "sex," + HEAD + "f,a.wav,ann,sad,1\nm,sub/b.wav,ann,sad,2\n",
            "subject ann is female in one row and male in another",
        ),
    ],
)
def test_a_table_with_a_fault_says_where(tmp_path, text, says):
    with pytest.raises(CorpusError, match=says) as caught:
        indexing.index_clips("mine", table(tmp_path, text))
    assert "clips.csv" in str(caught.value)


def test_a_table_in_another_encoding(tmp_path):
    with pytest.raises(CorpusError, match="save it as 'CSV UTF-8'"):
        indexing.index_clips("mine", table(tmp_path, GOOD, encoding="latin-1"))


# ------------------------------------------------------------------ forms of other programs


def put_file(path: Path, content: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_a_table_names_files_in_another_unicode_form(tmp_path):
    put_file(tmp_path / unicodedata.normalize("NFD", "Zoë/fröh.wav"))
    row = unicodedata.normalize("NFC", "Zoë/fröh.wav,Zoë,happy,1\n")
    second = unicodedata.normalize("NFD", "Zoë\\fröh.wav,Zoë,happy,2\n")
    put_file(tmp_path / "t.csv", f"path,subject,label,clip\n{row}{second}".encode())
    one, two = indexing.index_clips("mine", tmp_path / "t.csv")
    assert one.subject == two.subject
    assert Path(one.audio).samefile(two.audio)


@pytest.mark.parametrize("form", ["sep", "utf-16", "tab", "tsv"])
def test_a_table_in_the_forms_of_spreadsheets(tmp_path, form):
    put_file(tmp_path / "a.wav")
    text = "path;subject;label;clip\na.wav;ann;happy;1\n"
    text = f"sep=;\r\n{text}" if form == "sep" else text
    text = text.replace(";", "\t") if form in ("tab", "tsv") else text
    path = tmp_path / ("t.tsv" if form == "tsv" else "t.csv")
    put_file(path, text.encode("utf-16" if form == "utf-16" else "utf-8"))
    (entry,) = indexing.index_clips("mine", path)
    assert (entry.subject, entry.emotion) == ("ann", "happy")


def test_a_spreadsheet_and_latin_1_are_refused_with_the_fix(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as z:
        z.writestr("xl/workbook.xml", "")
    with pytest.raises(CorpusError, match="is a spreadsheet; save it as 'CSV UTF-8'"):
        indexing.index_clips("mine", tmp_path / "t.xlsx")
    put_file(tmp_path / "t.csv", "path,subject,label,clip\na.wav,Jörg,sad,1\n".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"0xf6 in line 2; it may be Latin-1\); save it as"):
        indexing.index_clips("mine", tmp_path / "t.csv")


PLAIN = "path,subject,label,clip\na.wav,ann,happy,c1\nb.wav,bob,sad,c2\n"
ODD_FORMS = {
    "utf-32": PLAIN.encode("utf-32"),
    "utf-16 without a mark": PLAIN.encode("utf-16-le"),
    "two marks": b"\xef\xbb\xbf\xef\xbb\xbf" + PLAIN.encode(),
    "lines that end in CR": PLAIN.replace("\n", "\r").encode(),
    "bars": PLAIN.replace(",", "|").encode(),
    "empty lines first": f"\r\n ,,,\n{PLAIN}".encode(),
    "row names of R": PLAIN.replace("\na", "\n1,a").replace("\nb", "\n2,b").encode(),
    "an index of pandas": f",{PLAIN}".replace("\na", "\n0,a").replace("\nb", "\n1,b").encode(),
    "capitals of Windows": PLAIN.replace(".wav", ".WAV").encode(),
}


@pytest.mark.parametrize("form", ODD_FORMS)
def test_a_table_of_another_program_is_read(tmp_path, form):
    write_files(tmp_path, ["a.wav", "b.wav"])
    put_file(tmp_path / "t.csv", ODD_FORMS[form])
    entries = indexing.index_clips("mine", tmp_path / "t.csv")
    found = [(Path(e.audio).name, e.subject, e.emotion, e.clip) for e in entries]
    assert found == [("a.wav", "ann", "happy", "c1"), ("b.wav", "bob", "sad", "c2")]


def test_two_files_that_differ_in_capitals_alone_are_not_guessed_between(tmp_path):
    write_files(tmp_path, ["a.wav", "A.wav", "b.wav"])
    put_file(tmp_path / "t.csv", PLAIN.replace("a.wav", "A.WAV").encode())
    with pytest.raises(CorpusError, match=r"1 files are not there.*A\.WAV"):
        indexing.index_clips("mine", tmp_path / "t.csv")


@pytest.mark.parametrize("content", [PLAIN.encode() + bytes(9), b"\x93NUMPY\1\0" + bytes(9)])
def test_what_is_no_text_is_not_called_latin_1(tmp_path, content):
    put_file(tmp_path / "t.csv", content)
    with pytest.raises(CorpusError, match=r"t\.csv is no text") as caught:
        indexing.index_clips("mine", tmp_path / "t.csv")
    assert "Latin" not in str(caught.value)


def test_one_file_under_two_labels_is_told(tmp_path):
    write_files(tmp_path, ["a.wav", "b.wav"])
    put_file(tmp_path / "t.csv", f"{PLAIN}a.wav,ann,fear,c3\nb.wav,bob,sad,c4\n".encode())
    report = doctor.examine_corpus(tmp_path / "t.csv", workers=1)
    assert report.names()["duplicate"] == {"a.wav = a.wav"}
