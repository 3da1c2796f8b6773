"""Adding a corpus: the formats, how to get each, and starting the tasks that prepare it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from core.data import download, prepared_corpora
from core.data.corpora import EXPECTED_FILES, KNOWN_CORPORA
from core.experiments import tasks
from core.files import UserError
from ui import theme
from ui.session import query_params

RAVDESS_GB = {"audio": 0.21, "video": 12.4}  # GB of the parts of RAVDESS' speech
TABLE_EXAMPLE = """path,subject,label,clip,sex
anna/01.mp4,anna,happy,anna-01,female
ben/07.wav,ben,sad,ben-07,male"""
MIN_SPARE_GB = 0.3  # GB that a download leaves free on the disk


@dataclass(frozen=True)
class CorpusFormat:
    """One format that a corpus may have on the disk."""

    title: str
    corpus: str  # its name in this project; "" is the user's own data
    about: str

    @property
    def looks(self) -> str:
        """Files that the path should hold, in words."""
        expected = f" Expected: {EXPECTED_FILES[self.corpus]}." if self.corpus else ""
        return self.about + expected


CORPUS_FORMATS = {
    "ravdess": CorpusFormat(
        "RAVDESS", "ravdess", "24 actors, 8 emotions, faces and voices (CC BY-NC-SA 4.0)."
    ),
    "crema-d": CorpusFormat(
        "CREMA-D", "crema-d", "91 actors, 6 emotions, faces, voices and raters' votes (ODbL)."
    ),
    "fer2013": CorpusFormat(
        "FER2013, or labelled faces", "fer2013", "Faces of unknown people, 7 emotions."
    ),
    "folder": CorpusFormat(
        "My own folder",
        "",
        "A folder or zip with faces/<emotion>/… and audio/<emotion>/… of pictures, videos, sounds.",
    ),
    "table": CorpusFormat(
        "My own table (CSV)",
        "",
        "A csv file with path, subject, label, clip; perhaps audio, sex, intensity, statement.",
    ),
}


def parse_path(text: str) -> Path | str:
    """A typed path on this machine, or a text that says what is wrong with it."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]  # terminals and file managers copy paths in quotes
    if not text:
        return "Enter where the corpus is: a folder, zip or table on this machine."
    try:
        path = Path(text).expanduser().resolve()
        try:
            path.stat()
        except PermissionError as e:
            return f"{path} may not be looked at ({e.strerror}): allow it to the user of this app."
        except (FileNotFoundError, NotADirectoryError):
            return (
                f"{path} does not exist on this machine. Copy the path from a file manager or a "
                "terminal (pwd)."
            )
    except (OSError, ValueError, RuntimeError) as e:
        return f"This is not a path: {e}."
    return path


def corpus_name(text: str, path: Path) -> str:
    """The name of an own corpus, made plain. Raises UserError that says what a name may be."""
    name = re.sub(r"[^a-z0-9_]+", "-", (text.strip() or path.stem).lower()).strip("-")[:40]
    prepared_corpora.check_name(name)
    if name in KNOWN_CORPORA:
        raise UserError(f"{name!r} cannot be a corpus' name here: a published corpus has it.")
    if prepared_corpora.parse_name(name)[0] != name:
        raise UserError(
            f"{name!r} cannot be a corpus' name: such an ending says how many mel bands its voices "
            "have. Choose that number in the options below."
        )
    return name


def start_task(arguments: Sequence[str]) -> None:
    """Start a background task and show it; an error if it cannot be started."""
    try:
        query_params.set_value("errand", tasks.start(arguments))
    except OSError as e:
        st.error(theme.escape_markdown(f"It cannot be started: {e}"), icon=":material/error:")
        return
    st.rerun()


# ------------------------------------------------------------------ how to get a corpus


def show_instructions(form: str) -> None:
    """For the format of a corpus that is not here yet: a download button, or what to type."""
    if form == "ravdess":
        _show_ravdess_download()
    elif form in KNOWN_CORPORA:
        for block in re.split(r"\n\n+", download.manual_steps(form, _raw_folder(form))):
            if block.startswith("  "):
                code = "\n".join(line.strip() for line in block.splitlines())
                st.code(code, language="bash", wrap_lines=True)
            else:
                st.markdown(theme.escape_markdown(block))
    elif form == "folder":
        st.markdown(
            "The folders above the files name the emotion; one folder more names the person:"
        )
        st.code("faces/happy/anna/01.jpg\naudio/happy/anna/01.wav", language=None)
        st.caption(
            "Faces are searched for in pictures of whole scenes; small pictures (up to 128 pixels) "
            "are taken as faces that are cut out already."
        )
    else:
        st.markdown(
            "One line for each file; paths are relative to the table, lines of one clip share its "
            "name:"
        )
        st.code(TABLE_EXAMPLE, language=None)


def _raw_folder(corpus: str) -> Path:
    return prepared_corpora.processed_folder().parent.resolve() / "raw" / corpus


def _show_ravdess_download() -> None:
    """The parts of RAVDESS, the room that they need, and a button that downloads them."""
    look = {"selection_mode": "multi", "default": ["audio"], "key": "what"}
    look["format_func"] = lambda k: f"{k}: {RAVDESS_GB[k]:g} GB"
    parts = st.pills("Parts", list(RAVDESS_GB), **look)
    target = _raw_folder("ravdess")
    disk = next(p for p in (target, *target.parents) if p.exists())
    free, need = shutil.disk_usage(disk).free / 1e9, sum(RAVDESS_GB[k] for k in parts)
    st.markdown(
        f"{need:.1f} GB from Zenodo (CC BY-NC-SA 4.0) into `{target}`, where {free:.1f} GB are "
        "free. The audio is enough for voices; faces need the video. A stopped download continues "
        "where it was."
    )
    if need + MIN_SPARE_GB > free:
        st.error("There is not enough room on this disk.", icon=":material/hard_drive:")
    elif not parts:
        st.caption("Choose at least one part.")
    elif st.button("Fetch", icon=":material/download:", key="fetch"):
        start_task(["fetch", "ravdess", "--what", *[k for k in RAVDESS_GB if k in parts]])
