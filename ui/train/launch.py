"""Check that a training's corpora are prepared, and start trainings."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.config import Config
from core.data import preparation, prepared_corpora
from core.experiments import jobs
from core.files import StopRequested, UserError
from ui import theme
from ui.session import corpora, query_params
from ui.train import progress


def show_corpus_state(config: Config) -> bool:
    """Show whether the corpora of `config` are prepared; returns whether a training can start."""
    data = config.data
    names = list(dict.fromkeys(n for n in (data.faces, data.voices, data.f_s_corpus) if n))
    demo = prepared_corpora.demo_corpora(data)
    exists = lambda *name: prepared_corpora.corpus_path(*name).exists()  # noqa: E731
    missing = [n for n in names if n not in demo and not exists(n)]
    mismatch = corpora.band_mismatch(config)
    if missing:
        _show_missing(missing)
    elif mismatch:
        words = theme.escape_markdown(mismatch) + ". Both are under *All other settings*."
        st.warning(words, icon=":material/graphic_eq:")
    elif not all(exists(n, data.demo_takes) for n in demo):
        st.caption(":material/brush: The demo corpus will be drawn first: nothing is downloaded.")
    else:
        st.caption(":material/check_circle: Corpus ready: " + " × ".join(names))
    has_classes = len(data.classes) > 1
    if not has_classes:
        words = "Choose two emotions or more, under *All other settings*."
        st.warning(words, icon=":material/rule:")
    return has_classes and not missing and not mismatch


def _show_missing(names: Sequence[str]) -> None:
    """The commands that prepare missing corpora, and a link to the page that does it too."""
    words = f"**Not prepared: {' and '.join(names)}.** Once, in a terminal, with the corpus as "
    st.warning(f"{words}published:", icon=":material/folder_off:")
    commands = "\n".join(map(prepared_corpora.prepare_command, names))
    st.code(commands, language="bash", wrap_lines=True)
    bands = max(prepared_corpora.parse_name(n)[1] for n in names)
    go = {"icon": ":material/database:", "query_params": {"part": "bring", "bands": str(bands)}}
    st.page_link("pages/data.py", label="Or on the Data page", **go)


def start_trainings(configs: Sequence[Config], device: str) -> None:
    """Draw the demo corpus if it is needed, queue the trainings and show the first of them."""
    data = configs[0].data
    try:
        for name in prepared_corpora.demo_corpora(data):
            tick = progress.demo_progress_callback(st.progress(0.0, "Drawing the demo corpus …"))
            preparation.prepare_corpus(
                name, None, preparation.PreparationSettings(takes=data.demo_takes), tick=tick
            )
        run_ids = [jobs.start(config, device) for config in configs]
    except (UserError, OSError, StopRequested) as error:
        st.error(theme.escape_markdown(str(error)), icon=":material/error:")
        return
    query_params.set_value("run", run_ids[0])
    query_params.set_value("at", None)
    st.rerun()
