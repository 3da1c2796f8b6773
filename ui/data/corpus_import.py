"""Bringing a corpus: which forms there are, how each is got, and the errands that examine, fetch and prepare it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from core.data import download, splits
from core.data.corpora import EXPECTED_FILES, KNOWN_CORPORA
from core.experiments import tasks
from ui import theme
from ui.session import query_params

RAVDESS_GB = {"audio": 0.21, "video": 12.4}  # GB of RAVDESS' speech


@dataclass(frozen=True)
class CorpusFormat:
    """One form that a corpus may have on the disk."""

    title: str
    corpus: str  # its name in this project, "" for own data
    about: str

    @property
    def looks(self) -> str:
        """What lies at the path."""
        return (
            f"{self.about} Expected: {EXPECTED_FILES[self.corpus]}." if self.corpus else self.about
        )


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
    """A path on this machine that a person has typed, or in words what is wrong with it."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]  # as terminals and file managers copy it
    if not text:
        return "Say where the corpus lies: a folder, zip or table on this machine."
    try:
        path = Path(text).expanduser().resolve()
        if not path.exists():
            return f"{path} does not exist on this machine. Copy the path from a file manager or a terminal (pwd)."
    except (OSError, ValueError, RuntimeError) as e:
        return f"This is no path: {e}."
    return path


def corpus_name(text: str, path: Path) -> str:
    """The name of an own corpus. Raises ValueError that says what a name may be."""
    name = re.sub(r"[^a-z0-9]+", "-", (text.strip() or path.stem).lower()).strip("-")[:40]
    if not re.match(r"[a-z]", name) or name in KNOWN_CORPORA or name.startswith("demo"):
        raise ValueError(
            f"{name or text!r} cannot be a corpus' name: begin with a letter, and not with demo, nor {', '.join(KNOWN_CORPORA)}."
        )
    if splits.parse_name(name)[0] != name:
        raise ValueError(
            f"{name!r} cannot be a corpus' name: such an ending says how many mel bands, which the options below ask for."
        )
    return name


def start_task(arguments: Sequence[str]) -> None:
    """Start an errand and show it."""
    try:
        query_params.set_value("errand", tasks.start(arguments))
    except OSError as e:
        st.error(theme.escape_markdown(f"It cannot be started: {e}"), icon=":material/error:")
        return
    st.rerun()


# ------------------------------------------------------------------ how a corpus is got


def show_instructions(form: str) -> None:
    """For a corpus that is not on this machine yet: a button, or what to type."""
    target = splits.processed_folder().parent.resolve() / "raw" / form
    if form == "ravdess":
        size = lambda k: f"{k}: {RAVDESS_GB[k]:g} GB"  # noqa: E731
        what = st.pills(
            "Parts",
            list(RAVDESS_GB),
            selection_mode="multi",
            default=["audio"],
            format_func=size,
            key="what",
        )
        free = (
            shutil.disk_usage(next(p for p in (target, *target.parents) if p.exists())).free / 1e9
        )
        need = sum(RAVDESS_GB[k] for k in what)
        st.markdown(
            f"{need:.1f} GB from Zenodo (CC BY-NC-SA 4.0) into `{target}`, where {free:.1f} GB are free. "
            "The audio is enough for voices; faces need the video. It can be stopped, and goes on where it was."
        )
        if need + 0.3 > free:
            st.error("There is not enough room on this disk.", icon=":material/hard_drive:")
        elif not what:
            st.caption("Choose at least one part.")
        elif st.button("Fetch", icon=":material/download:", key="fetch"):
            start_task(["fetch", "ravdess", "--what", *[k for k in RAVDESS_GB if k in what]])
    elif form in KNOWN_CORPORA:
        for block in re.split(r"\n\n+", download.manual_steps(form, target)):
            if block.startswith("  "):
                st.code(
                    "\n".join(line.strip() for line in block.splitlines()),
                    language="bash",
                    wrap_lines=True,
                )
            else:
                st.markdown(theme.escape_markdown(block))
    elif form == "folder":
        st.markdown(
            "The folders above the files name the emotion; one folder more, and it names the person:"
        )
        st.code("faces/happy/anna/01.jpg\naudio/happy/anna/01.wav", language=None)
        st.caption(
            "Pictures of whole scenes are searched for a face; small ones (up to 128 pixels) are taken as faces cut out already."
        )
    else:
        st.markdown(
            "One line for each file; paths are relative to the table, lines of one clip share its name:"
        )
        st.code(
            "path,subject,label,clip,sex\nanna/01.mp4,anna,happy,anna-01,female\nben/07.wav,ben,sad,ben-07,male",
            language=None,
        )


# ------------------------------------------------------------------ errands


# ------------------------------------------------------------------ the doctor's report
