"""Names of corpora and numbers that are refused, and what lies around and beside own data."""

import ast
import contextlib
import functools
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import core.__main__ as cli
from core import files
from core.data import preparation, prepared_corpora
from core.data.checks import doctor, faults
from core.data.corpora import CorpusError
from core.data.sources import indexing
from core.files import UserError
from tests.support import corpus_trees
from tests.support.file_trees import write_files, write_zip
from ui.data import corpus_import


@functools.cache
def voice() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.05, 19_200), 16_000, format="WAV")
    return file.getvalue()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / "home" / "data"))
    return tmp_path / "home" / "data" / "processed"


@pytest.fixture
def own(tmp_path):
    """Two sounds as own data."""
    return write_files(
        tmp_path / "own", {f"audio/{e}/anna/1.wav": voice() for e in ("happy", "sad")}
    )


def refused(capsys, *words: str) -> str:
    """The one line with which a command is refused."""
    assert cli.main(list(words)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def both(root: Path, name: str = "mine"):
    """What `prepare` makes of own data, and what the doctor says of it."""
    path = preparation.prepare_corpus(name, root, workers=1)
    return prepared_corpora.load_corpus_file(path), doctor.examine_corpus(root, workers=1)


def details(report, kind: str) -> dict[str, str]:
    return next((dict(f.details) for f in report.faults if f.kind == kind), {})


# ------------------------------------------------------------------ names of corpora

BAD_NAMES = [
    *("../../escaped", "/tmp/escaped", "a/../../b", "..", ".", "", " ", "a\\b", "C:\\x", "a.npz"),
    *("x" * 300, "a\nb", "a\x07b", "a\x00b", "a\udcffb", "über", "1984", "two words", "a-b-64/x"),
    *("con", "NUL", "lpt1", "com9-64", "demo-10", "Demo", "demonstration", "RAVDESS", "Crema-D"),
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_no_files_name_is_refused_and_nothing_written(
    tmp_path, home, own, capsys, name
):
    before = sorted(tmp_path.rglob("*"))
    assert "cannot be a corpus' name" in refused(
        capsys, "data", "prepare", name, "--source", str(own)
    )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", BAD_NAMES)
def test_the_page_holds_the_same_rule(name):
    """What is typed there is made plain first; what comes of it is a name or refused too."""
    made = None
    with contextlib.suppress(UserError):
        made = corpus_import.corpus_name(name, Path("/"))
    if made is None:
        with pytest.raises(UserError, match="cannot be a corpus' name"):
            corpus_import.corpus_name(name, Path("/"))
    else:
        prepared_corpora.check_name(made)
        assert prepared_corpora.corpus_path(made).parent == prepared_corpora.processed_folder()


@pytest.mark.parametrize(
    "name", ["mine", "My_own-2", "a", "x" * 40, "mine-64", "demo-64", "fer2013"]
)
def test_a_plain_name_is_taken(name):
    prepared_corpora.check_name(name)


# ------------------------------------------------------------------ numbers and empty paths

COUNTS = ("takes", "frames", "crops")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        *(
            (o, v, "between 1 and 100")
            for o in ("takes", "frames", "crops")
            for v in ("0", "-3", "101")
        ),
        ("workers", "-2", "between 0 and 1,000,000"),
        *(("lost", v, "is a share of the clips, 0 to 1") for v in ("-0.1", "1.5", "nan")),
    ],
)
@pytest.mark.parametrize("corpus", ["demo", "mine"])
def test_a_number_out_of_range_is_refused_before_any_work(
    home, own, capsys, corpus, option, value, words
):
    source = [] if corpus == "demo" else ["--source", str(own)]
    line = refused(capsys, "data", "prepare", corpus, *source, f"--{option}", value)
    assert words in line
    assert not home.exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("doctor", ".", "--seconds", "-1"), "--seconds are at least 0; got -1"),
        (("doctor", ".", "--seconds", "nan"), "--seconds are at least 0"),
        (("draw", "x", "--count", "0"), "--count is 0; it must lie between 1 and"),
        (("prepare", "mine", "--source", ""), "--source is empty; give a path, or . for"),
        (("prepare", "mine", "--source", " "), "--source is empty"),
        (("doctor", ""), "the corpus' path is empty"),
        (("draw", ""), "the folder is empty"),
        (("fetch", "crema-d", "--to", ""), "--to is empty"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(own, home, capsys, monkeypatch, command, words):
    monkeypatch.chdir(own)
    assert words in refused(capsys, "data", *command)
    assert not home.exists()
    assert sorted(p.name for p in own.iterdir()) == ["audio"]


def test_a_tilde_that_the_shell_left_is_the_home(own, home, monkeypatch):
    monkeypatch.setenv("HOME", str(own.parent))
    assert cli.main(["data", "prepare", "mine", f"--source=~/{own.name}"]) == 0
    assert cli.main(["data", "doctor", f"~/{own.name}"]) == 0


# ------------------------------------------------------------------ around own data


@pytest.mark.parametrize("above", ["", "mine/", "a/b/", "a/faces/c/d/"])
@pytest.mark.parametrize("form", ["folder", "zip", "zip in a folder", "zip further down"])
def test_own_data_may_lie_inside_further_folders(tmp_path, home, form, above):
    contents = {f"{above}audio/{e}/anna/1.wav": voice() for e in ("happy", "sad")}
    root = tmp_path / "root"
    if form == "folder":
        write_files(root, contents)
    elif form == "zip":
        root = write_zip(tmp_path / "root.zip", contents)
    else:
        write_zip(root / ("z.zip" if form == "zip in a folder" else "down/here/z.zip"), contents)
    corpus, report = both(root)
    assert (len(corpus.voices), set(corpus.subject), corpus.meta["left_out"]) == (2, {"anna"}, {})
    assert (report.corpus, report.counts["clips"], report.counts["subjects"]) == ("own", 2, 1)
    assert report.names().keys() <= {"duplicate"}


def test_a_zip_beside_its_unpacked_content_counts_once(tmp_path, home, own):
    contents = {f"audio/{e}/anna/1.wav": voice() for e in ("happy", "sad")}
    write_files(tmp_path / "root/z", contents)
    write_zip(tmp_path / "root/z.zip", contents)
    index = indexing.index_corpus("mine", tmp_path / "root")
    assert [e.clip for e in index.entries] == [f"z/{path}" for path in contents]
    assert set(index.passed_over.values()) == {indexing.SAME_PATH}
    assert len(index.passed_over) == 2


# ------------------------------------------------------------------ beside own data


def test_forms_that_are_not_read_are_counted_by_ending(home, own, capsys):
    names = [*(f"{i}.docx" for i in range(3)), "audio/happy/x.psd", "a/y.PSD", "README"]
    write_files(own, dict.fromkeys(names, b"\x01\x02 of no known kind"))
    assert cli.main(["data", "prepare", "mine", "--source", str(own)]) == 0
    told = capsys.readouterr().out
    report = faults.to_text(doctor.examine_corpus(own, workers=1))
    for count, ending, first in ((3, ".docx", "0.docx"), (2, ".psd", "a"), (1, "no ending", "R")):
        words = (
            f"{count} of {ending}: no picture, video or sound of a form that is read here: {first}"
        )
        assert words in told
        assert words in report


def test_where_nothing_is_read_its_endings_are_counted(tmp_path, home, capsys):
    root = write_files(
        tmp_path / "r", {"a.doc": b"\0a", "b/c.DOC": b"\0b", "d": b"\0c", "e.raw": b"\0"}
    )
    line = refused(capsys, "data", "prepare", "mine", "--source", str(root))
    assert "(its files: 2 .doc, 1 without ending, 1 .raw)" in line


@pytest.mark.parametrize("path", ["anna/happy/1.wav", "happy/1.wav"])
def test_sounds_that_lie_elsewhere_are_told_where_to_lie(tmp_path, home, capsys, path):
    root = write_files(tmp_path / "r", {path: voice()})
    line = refused(capsys, "data", "prepare", "mine", "--source", str(root))
    assert "Its folder happy is an emotion's: put it into a folder faces or audio" in line
    with pytest.raises(CorpusError, match=r"lay your own in faces/<emotion>/ and audio/<emotion>/"):
        doctor.examine_corpus(root)


@pytest.mark.parametrize(
    ("target", "words"), [("nowhere.wav", "a link to nothing"), ("z.wav", "a link to itself")]
)
@pytest.mark.parametrize("name", ["mine", "ravdess"])
def test_a_dangling_link_is_named_in_the_same_words(tmp_path, home, own, name, target, words):
    link = own / "audio/happy/z.wav"
    if name == "ravdess":
        write_files(own, {"Actor_01/03-01-03-01-01-01-01.wav": voice()})
        link = own / "Actor_01/z.wav"
    link.symlink_to(target)
    path = preparation.prepare_corpus(name, own, workers=1)
    passed = prepared_corpora.read_source_record(path)["passed_over"]
    report = doctor.examine_corpus(own, "own" if name == "mine" else name, workers=1)
    shown = str(link.relative_to(own))
    assert (passed[shown], details(report, "passed-over")[shown]) == (words, words)
    assert shown not in report.names().get("unreachable", ())


def test_a_pipe_is_named_and_not_waited_for(home, own):
    os.mkfifo(own / "audio/happy/pipe.wav")
    corpus, report = both(own)
    assert len(corpus.voices) == 2
    assert details(report, "passed-over") == {"audio/happy/pipe.wav": "a device or a pipe"}


BROKEN = {
    "broken.zip": (b"PK\3\4 and no more", "is a damaged zip|damaged"),
    "pointer.zip": (corpus_trees.lfs_pointer("z"), "git lfs pull"),
    "empty.zip": (b"", "empty; copy it again"),
    "old.zip": (b"Rar!\x1a\7\0" + bytes(99), "a rar archive"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_zip_is_named_and_does_not_hide_the_rest(home, own, name):
    content, words = BROKEN[name]
    write_files(own, {f"more/{name}": content})
    corpus, report = both(own)
    assert len(corpus.voices) == 2
    path = prepared_corpora.corpus_path("mine")
    passed = prepared_corpora.read_source_record(path)["passed_over"]
    assert passed.keys() == {f"more/{name}"}
    assert any(word in passed[f"more/{name}"] for word in words.split("|"))
    assert details(report, "passed-over") == passed
    assert [f.kind for f in report.faults if f.severity == "error"] == []


def test_a_broken_zip_alone_is_the_reason(tmp_path):
    with pytest.raises(CorpusError, match=r"holds no clip .* Its z\.zip is .*damaged"):
        indexing.index_clips("mine", write_files(tmp_path / "r", {"z.zip": b"PK\3\4 no"}))


def test_a_broken_zip_of_an_official_corpus_is_refused(tmp_path):
    """It may hold an actor, who would be missing unsaid."""
    root = write_files(
        tmp_path / "r", {"Actor_01/03-01-03-01-01-01-01.wav": voice(), "2.zip": b"PK no"}
    )
    with pytest.raises(CorpusError, match=r"2\.zip is not a zip archive or is damaged"):
        indexing.index_clips("ravdess", root)


# ------------------------------------------------------------------ names of files, ids


def test_a_name_that_cannot_be_decoded_is_named(home, own, capsys):
    odd = os.fsdecode(b"M\xfcller")
    write_files(own, {f"audio/sad/{odd}.wav": voice(), f"{odd}.txt": b"words"})
    (own / f"audio/sad/{odd} two.wav").write_bytes(b"")
    assert cli.main(["data", "prepare", "mine", "--source", str(own), "--lost", "1"]) == 0
    out = capsys.readouterr().out
    out.encode()
    assert "M\\udcfcller.txt" in out
    assert "audio/sad/M\\udcfcller two.wav: MediaError" in out
    corpus = prepared_corpora.load_corpus("mine")
    assert "audio/sad/M\\udcfcller.wav" in corpus.clip


def test_a_control_character_in_a_name_does_not_reach_the_terminal(home, own, capsys):
    write_files(own, {"audio/sad/a\x1b[31m\nb.wav": voice(), "x\x07.txt": b"words"})
    assert cli.main(["data", "prepare", "mine", "--source", str(own)]) == 0
    assert "\x07" not in capsys.readouterr().out
    assert "audio/sad/a\\x1b[31m\\nb.wav" in prepared_corpora.load_corpus("mine").clip


def table(folder: Path, *rows: str) -> list:
    """The entries of a table of these rows: subject,clip."""
    (folder / "a.wav").write_bytes(voice())
    lines = ["path,label,subject,clip", *(f"a.wav,happy,{row}" for row in rows)]
    (folder / "t.csv").write_bytes("\n".join(lines).encode())
    return indexing.index_clips("mine", folder / "t.csv")


@pytest.mark.parametrize("ids", ["a\x07b", "a\u202eb", '"a\nb"', "a\x7fb", "a\ue000b"])
def test_ids_of_unprintable_characters_are_shown_in_escapes(tmp_path, ids):
    (entry,) = table(tmp_path, f"{ids},{ids}")
    assert entry.subject.isprintable()
    assert entry.clip.isprintable()
    assert entry.subject[0] + entry.subject[-1] == "ab"


def test_ids_that_look_alike_are_the_same(tmp_path):
    one, two, three = table(tmp_path, "anna,1", "an\u200bna,2", "\ufeffanna\u00a0,3")
    assert {one.subject, two.subject, three.subject} == {"anna"}


@pytest.mark.parametrize(
    "rows", ['"a\x07\nb.wav",x,happy,1', 'a.wav,x,happy,"1\n2"\na.wav,y,happy,"1\n2"']
)
def test_a_refusal_of_odd_ids_is_one_printable_line(tmp_path, rows):
    (tmp_path / "a.wav").write_bytes(voice())
    (tmp_path / "t.csv").write_text("path,subject,label,clip\n" + rows)
    with pytest.raises(CorpusError) as caught:
        indexing.index_clips("mine", tmp_path / "t.csv")
    assert str(caught.value).isprintable()


UNKNOWN = ["", " ", "nan", "NaN", "NA", "N/A", "#N/A", "none", "None", "<NA>", "null", "unknown"]


@pytest.mark.parametrize("word", UNKNOWN)
def test_an_unknown_subject_is_no_person(tmp_path, word):
    entries = table(tmp_path, f"{word},1", f"{word},2", "Nana,3")
    assert [e.subject for e in entries] == ["", "", "Nana"]


def test_a_folder_may_say_that_a_subject_is_unknown(tmp_path):
    root = write_files(tmp_path / "r", {"audio/sad/N_A/1.wav": b"", "audio/sad/unknown/2.wav": b""})
    assert [e.subject for e in indexing.index_clips("mine", root)] == ["N_A", ""]


@pytest.mark.parametrize("form", ["folder", "table"])
def test_names_are_the_same_in_a_locale_that_has_no_umlauts(tmp_path, form):
    write_files(tmp_path / "r", {"audio/happy/Zoë/ä.wav": voice()})
    (tmp_path / "t.csv").write_text(
        "path,subject,label,clip\nr/audio/happy/Zoë/ä.wav,Zoë,happy,ä\n", encoding="utf-8"
    )
    root = tmp_path / ("r" if form == "folder" else "t.csv")
    (here,) = indexing.index_clips("mine", root)
    code = "import sys, pathlib; from core.data.sources import indexing as i; "
    code += "e, = i.index_clips('mine', pathlib.Path(sys.argv[1])); print(ascii(e.__dict__))"
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        env=os.environ | locale,
        cwd=files.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    there = ast.literal_eval(done.stdout)
    assert (there["clip"], there["subject"]) == (here.clip, here.subject)
    assert os.fsdecode(there["audio"].encode("ascii", "surrogateescape")) == here.audio


def test_what_is_prepared_in_a_locale_without_umlauts_is_the_same(tmp_path, home):
    """There, names come as bytes that are no text, as the second path here."""
    root = write_files(tmp_path / "Zoë", {"audio/happy/ä.wav": voice(), "audio/sad/ß.wav": b""})
    there, told = Path(os.fsencode(root).decode("ascii", "surrogateescape")), []
    made = []
    for source in (root, there):
        path = preparation.prepare_corpus("mine", source, workers=1, again=True, warn=told.append)
        record = prepared_corpora.read_source_record(path)
        left_out = prepared_corpora.load_corpus_file(path).meta["left_out"]
        made.append((left_out, record["source"], record["clips"].keys()))
    assert made[0] == made[1]
    assert made[0][1] == str(root)
    assert "ß.wav is empty" in made[0][0]["audio/sad/ß.wav"]
    assert not any("give another name" in sentence for sentence in told)


def test_output_that_is_closed_is_no_fault(own):
    for stream in (">&-", "2>&-"):
        command = f'"{sys.executable}" -m core data doctor "{own}/audio/happy" {stream}'
        done = subprocess.run(command, shell=True, cwd=files.ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert "Traceback" not in done.stdout + done.stderr
