"""Voices in more mel bands than the paper's 28.

A corpus of their own, from prepare to a run and the pages; and 28 stay what they were.
"""

import zipfile

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from core import __main__ as cli
from core import files
from core.config.presets import FINE, PRESETS
from core.config.settings import BAND_COUNTS, LogMel, replace
from core.data import features, preparation, prepared_corpora, splits
from core.data.corpora import CorpusError
from core.evaluation import comparison
from core.experiments import tasks
from core.inference import examples, export, generation
from core.inference.gallery import real_items
from core.media import clips, spectrograms
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs
from tests.support.app import assert_no_exception, open_page, page_text
from tests.support.noise_corpora import write_noise_corpus, write_task
from ui.data import corpus_import


@pytest.fixture
def finer(home, tmp_path_factory):
    """A home of its own with a run on voices in 64 mel bands."""
    return trained_runs.copy_home(
        trained_runs.bands_64_home(tmp_path_factory.getbasetemp() / "finer"), home
    )


def spoken(root, actors=2, emotions=(1, 2, 5), folders=None):
    """Some sounds under RAVDESS' names, or as own data."""
    rng = np.random.default_rng(0)
    for actor in range(1, actors + 1):
        for emotion in emotions:
            path = root / f"Actor_{actor:02d}" / f"03-01-{emotion:02d}-01-02-01-{actor:02d}.wav"
            path = root / "audio" / "happy" / f"{actor}{emotion}.wav" if folders else path
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.05 * rng.standard_normal(19_000), 16_000)
    return root


def the_run() -> Run:
    return Run(files.checkpoints_folder() / store.list_runs()[0]["run"])


# ------------------------------------------------------------------ names


@given(
    st.sampled_from(["demo", "ravdess", "crema-d", "demo-clips", "mine", "class-2024", "a-7"]),
    st.sampled_from(BAND_COUNTS),
    st.integers(1, 99),
)
def test_a_name_says_whose_clips_and_how_many_bands(clips, bands, takes):
    name = prepared_corpora.name_with_bands(clips, bands)
    assert prepared_corpora.parse_name(name) == (clips, bands)
    assert prepared_corpora.parse_stem(prepared_corpora.corpus_path(name, takes).stem) == (
        name,
        takes if clips == "demo" else 0,
    )
    assert prepared_corpora.is_demo(name) == (clips == "demo")
    assert (f" --bands {bands}" in prepared_corpora.prepare_command(name)) == (bands != 28)


def test_files_of_the_papers_size_keep_their_names():
    names = {
        n: prepared_corpora.corpus_path(n, 64).name
        for n in ("demo", "demo-64", "ravdess", "ravdess-64", "demo-clips")
    }
    assert names == {
        "demo": "demo-64.npz",  # 64 takes
        "demo-64": "demo-64-64.npz",
        "ravdess": "ravdess.npz",
        "ravdess-64": "ravdess-64.npz",
        "demo-clips": "demo-clips.npz",
    }
    assert prepared_corpora.parse_name("-64") == ("-64", 28)


def test_corpora_of_the_papers_size_keep_their_keys(tmp_path):
    """What a prepared file and its half-done parts are found by.

    Held here, so that a later setting leaves them valid.
    """
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as z:
        for actor in ("01", "02"):
            z.writestr(f"Actor_{actor}/03-01-05-01-02-01-{actor}.wav", b"not read")
    items = preparation.list_items("ravdess", tmp_path / "r.zip", preparation.DEFAULT_SETTINGS)
    key = lambda name, how: preparation.content_key(name, tmp_path / "r.zip", items, how)  # noqa: E731
    assert key("ravdess", features.ExtractionSettings()) == "c89a61b94d39a6b5"
    assert key("ravdess", features.ExtractionSettings(frames=3, crops=2)) == "3543c90a0a2698fa"
    keys = {
        key("ravdess", features.ExtractionSettings()),
        *(key(f"ravdess-{b}", features.ExtractionSettings(bands=b)) for b in BAND_COUNTS[1:]),
    }
    assert len(keys) == 3


@pytest.mark.parametrize("bands", BAND_COUNTS)
def test_every_band_hears_something(bands):
    filters = spectrograms.mel_filters(LogMel(bands=bands))
    assert ((filters > 0).sum(axis=1) >= 2).all()


# ------------------------------------------------------------------ prepare


def test_the_command_line_makes_a_corpus_of_its_own(tmp_path, home, capsys):
    root = spoken(tmp_path / "r")
    assert cli.main(["data", "prepare", "ravdess", "--source", str(root)]) == 0
    before = (prepared_corpora.processed_folder() / "ravdess.npz").read_bytes()
    capsys.readouterr()
    assert cli.main(["data", "prepare", "ravdess", "--source", str(root), "--bands", "64"]) == 0
    assert "--data.voices ravdess-64 --logmel.bands 64" in capsys.readouterr().out
    assert (prepared_corpora.processed_folder() / "ravdess.npz").read_bytes() == before
    coarse, fine = (
        prepared_corpora.load_corpus("ravdess"),
        prepared_corpora.load_corpus("ravdess-64"),
    )
    assert (coarse.bands, fine.bands, fine.voices.shape) == (28, 64, (6, 112, 64))
    assert ("bands" in coarse.meta, fine.meta["bands"]) == (False, 64)
    assert fine.name == "ravdess-64"
    assert fine.meta["title"] == "RAVDESS speech, 64 mel bands"
    assert fine.meta["ref_db"] == coarse.meta["ref_db"]  # of known corpora it is fixed
    assert fine.digest != coarse.digest
    assert np.array_equal(fine.subject, coarse.subject)
    wave = clips.read_waveform(root / "Actor_01" / "03-01-01-01-02-01-01.wav")
    assert np.array_equal(
        fine.voices[0], spectrograms.centre_crop(spectrograms.log_mel(wave, LogMel(bands=64)), 112)
    )
    stamp = (prepared_corpora.processed_folder() / "ravdess-64.npz").stat().st_mtime_ns
    assert (
        cli.main(["data", "prepare", "ravdess-64", "--source", str(root)]) == 0
    )  # the same by its name, and done already
    assert (prepared_corpora.processed_folder() / "ravdess-64.npz").stat().st_mtime_ns == stamp
    assert cli.main(["data", "prepare", "ravdess-80", "--source", str(root), "--bands", "64"]) == 1
    assert "leave one of them out" in capsys.readouterr().err


def test_own_data_has_a_reference_and_a_level_of_its_own_voices(tmp_path, home):
    preparation.prepare_corpus("mine-80", spoken(tmp_path / "m", folders=True))
    own = prepared_corpora.load_corpus("mine-80")
    assert own.meta["title"] == "mine, 80 mel bands"
    assert own.meta["ref_db"] == pytest.approx(np.percentile(own.voices, 99.9))
    assert own.meta["level"] == pytest.approx(np.median(spectrograms.level_db(own.voices)))


def test_faces_alone_have_no_bands(tmp_path, home):
    (tmp_path / "f" / "happy").mkdir(parents=True)
    (tmp_path / "f" / "happy" / "1.png").write_bytes(b"")
    with pytest.raises(CorpusError, match="fer2013 has no sound"):
        preparation.prepare_corpus("fer2013-64", tmp_path / "f")


# ------------------------------------------------------------------ a run's bands are its voices'


def test_a_run_is_refused_where_its_voices_have_other_bands(home):
    write_noise_corpus("faces", voices=False)
    write_noise_corpus("mine", faces=False)
    coarse = replace(FINE, data={"faces": "faces", "voices": "mine", "classes": ("happy", "sad")})
    with pytest.raises(CorpusError) as refused:
        splits.build_sets(coarse)
    assert "mine holds voices in 28 mel bands, and the run asks for 64" in str(refused.value)
    assert "python -m core data prepare mine --source FOLDER_OR_ZIP --bands 64" in str(
        refused.value
    )
    assert "--data.voices mine-64" in str(refused.value)
    assert splits.build_sets(replace(coarse, logmel={"bands": 28}))["S1"].y.shape[1:] == (112, 28)
    with pytest.raises(CorpusError, match=r"prepare mine --source FOLDER_OR_ZIP --bands 64"):
        splits.build_sets(replace(coarse, data={"voices": "mine-64"}))  # not there
    with pytest.raises(CorpusError, match="use --logmel.bands 28$"):
        splits.build_sets(replace(coarse, logmel={"bands": 32}))
    turned = replace(
        coarse, logmel={"bands": 28}, gan={"direction": "voice-face", "condition": "label"}
    )
    sets = splits.build_sets(turned)
    write_noise_corpus("other", faces=False, subjects=("x", "y"), bands=64)
    path, arrays = (
        prepared_corpora.corpus_path("other"),
        files.read_arrays(prepared_corpora.corpus_path("other")),
    )
    files.write_arrays(
        path, **arrays | {"voices": np.zeros((len(arrays["voices"]), 112, 64), np.float32)}
    )
    with pytest.raises(CorpusError, match=r"--data\.f_s_corpus other"):
        splits.f_s_training_data(replace(turned, data={"f_s_corpus": "other"}), sets)


def test_the_same_clips_in_two_sizes_are_not_two_corpora(finer):
    trained_runs.prepare_noise_demo()
    with pytest.raises(CorpusError, match="demo and demo-64 are the same clips"):
        splits.build_sets(
            replace(trained_runs.BANDS_64_CONFIG, data={"faces": "demo", "pairing": "emotion"})
        )
    with pytest.raises(CorpusError, match="f_s_corpus is demo-64"):
        splits.f_s_training_data(
            replace(trained_runs.BANDS_64_CONFIG, data={"f_s_corpus": "demo"}),
            splits.build_sets(trained_runs.BANDS_64_CONFIG),
        )


def test_the_preset_fine_is_the_real_one_in_64_bands():
    coarse = replace(FINE, logmel={"bands": 28}, data={"voices": "ravdess"})
    assert comparison.without_fold_and_seed(coarse) == comparison.without_fold_and_seed(
        PRESETS["fer2013-ravdess"]
    )
    assert prepared_corpora.parse_name(FINE.data.voices) == ("ravdess", FINE.logmel.bands)


def test_a_run_goes_the_whole_way(finer):
    run = the_run()
    results = run.json("results")
    assert results["quality"]["FID"] > 0
    assert "S1 + generated" in results["augmentation"]
    assert run.arrays("generated")["y"].shape[1:] == (112, 64)
    one = examples.load_face_example(run, "happy")
    assert (one.y.shape, one.real.shape, one.face.shape) == ((112, 64), (112, 64), (28, 28))
    o = generation.load_run(run)
    y = generation.generate_voices(o, one.face, one.c)[0]
    assert y.shape == (112, 64)
    assert len(generation.to_audio(o, y).wave) == 111 * 144
    assert generation.voice_spectrogram(
        o, np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    )[0].shape == (112, 64)
    real = real_items.load_real_items(run)
    assert real.voices.y.shape[1:] == (112, 64)
    assert (real.clip != "").all()
    card = export.model_card(run)
    assert "a 112×64 log-mel spectrogram from an aligned 28×28 face" in card
    assert "MIT, as this project" in card


# ------------------------------------------------------------------ pages


@pytest.mark.parametrize("preset", PRESETS)
def test_train_opens_with_every_preset(home, preset):
    app = open_page("train", preset=preset)
    assert app.selectbox(key="preset").value == preset


def test_train_says_what_the_preset_fine_lacks(home):
    app = open_page("train", preset="fine")
    assert "python -m core data prepare ravdess --source FOLDER_OR_ZIP --bands 64" in page_text(app)
    assert "python -m core data prepare fer2013 --source FOLDER_OR_ZIP" in page_text(app)
    assert app.button(key="start").disabled is True
    bring = next(link for link in app.get("page_link") if "bring" in link.proto.query_string)
    assert "bands=64" in bring.proto.query_string


def test_train_says_where_bands_and_voices_do_not_fit(finer):
    trained_runs.prepare_noise_demo()
    app = open_page("train", preset="smoke")
    assert app.button(key="start").disabled is False
    app.session_state["settings"] = True
    app.session_state["smoke logmel.bands"] = 64
    assert_no_exception(app.run())
    assert "demo holds voices in 28 mel bands, and the run asks for 64" in page_text(app).replace(
        "\\", ""
    )
    assert app.button(key="start").disabled is True


def test_the_data_page_prepares_in_more_bands(home, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(tasks, "start", lambda arguments: asked.append(list(arguments)) or "x-0")
    app = open_page("data", part="bring", form="ravdess", bands="64")
    app.text_input(key="source").set_value(str(tmp_path)).run()
    assert_no_exception(app.button(key="prepare").click().run())
    assert asked == [["prepare", "ravdess-64", "--source", str(tmp_path)]]
    app = open_page("data", part="bring", form="fer2013", bands="64")  # faces alone
    app.text_input(key="source").set_value(str(tmp_path)).run()
    assert_no_exception(app.button(key="prepare").click().run())
    assert asked[1] == ["prepare", "fer2013", "--source", str(tmp_path)]
    with pytest.raises(ValueError, match="how many mel bands"):
        corpus_import.corpus_name("mine 64", tmp_path)
    assert corpus_import.corpus_name("class 2024", tmp_path) == "class-2024"
    write_task("prepare-1", "done", ["prepare", "ravdess-64", "--source", "/x"], message="done")
    assert "Prepare ravdess-64" in page_text(
        open_page("data", part="bring", errand="prepare-1")
    ).replace("\\", "")


def test_pages_show_a_corpus_in_its_own_bands(finer):
    app = open_page("data", corpus="demo-2-64", view="clips")
    assert "64 mel bands" in page_text(app)
    assert "made from the spectrogram" in page_text(app)
    assert "as 64 bands keep it" in page_text(app)
    assert "drawn again" in page_text(app)
    assert_no_exception(open_page("data", corpus="demo-2-64", view="sets"))
    assert "Nobody is in two sets" in page_text(open_page("data", corpus="demo-2-64", view="sets"))


def test_pages_show_a_run_in_its_own_bands(finer):
    text = page_text(open_page("gallery"))
    assert "64 bands" in text
    assert "28 bands" not in text
    assert "28 mel" not in text
    assert "the same 64 mel bands" in page_text(open_page("gallery", view="quiz"))
    for page in ("evaluate", "condition"):
        assert "28 mel bands" not in page_text(open_page(page)), page


def test_without_its_corpus_the_gallery_says_what_makes_it(finer):
    prepared_corpora.corpus_path("demo-64", 2).unlink()
    assert "python -m core data prepare demo --takes 2 --bands 64" in page_text(
        open_page("gallery")
    )
