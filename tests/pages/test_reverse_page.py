"""The page Reverse in every state: no run, unfinished and finished runs; examples and uploads."""

from __future__ import annotations

import base64
import csv
import io
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from core import files
from core.config import presets, settings
from core.data.demo import actors, expressions, voices
from core.inference import examples, export, generation
from core.media import clips, containers, sandbox, spectrograms
from core.media.faces import alignment
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs
from tests.support.app import assert_no_exception, count_elements, open_page, page_text
from tests.support.noise_corpora import HOSTILE_TEXTS, page_markup
from ui import reverse
from ui.widgets import uploads

RATE = 16_000


@pytest.fixture
def turned(home, tmp_path_factory):
    """A home of its own with finished runs from voices to faces."""
    return trained_runs.copy_home(
        trained_runs.reverse_home(tmp_path_factory.getbasetemp() / "turned"), home
    )


def the_run(condition: str = "label") -> Run:
    return Run(
        files.checkpoints_folder()
        / next(r["run"] for r in store.list_runs() if r["condition"] == condition)
    )


def lab(**query: str):
    return open_page("reverse", run=the_run().id, **query)


def pictures(app) -> list[np.ndarray]:
    """The faces on the page, as they come."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page_markup(app))
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(k)))) for k in found]


def generated(app) -> list[np.ndarray]:
    return pictures(app)[-len(re.findall('alt="generated face', page_markup(app))) :]


def wav(wave: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def uploaded(name: str, content: bytes, kind: str = "audio/wav"):
    app = lab()
    app.segmented_control(key="reverse kind").set_value("Upload").run()
    assert "will appear here" in page_text(assert_no_exception(app))
    return assert_no_exception(
        app.file_uploader(key="reverse upload").set_value((name, content, kind)).run()
    )


# --- which runs -----------------------------------------------------------------------------------


def test_without_such_a_run_it_gives_the_command(home):
    trained_runs.fabricate_run("done")  # it makes voices: no use here
    app = open_page("reverse")
    assert "no trained run from voices to faces yet" in page_text(app)
    assert reverse.TRAIN_COMMAND in page_text(app)
    assert "Nobody's face" in page_text(app)
    assert any(
        link.proto.query_string == "preset=demo&condition=label" for link in app.get("page_link")
    )
    assert pictures(app) == []


def test_the_command_trains_such_a_run():
    words = reverse.TRAIN_COMMAND.split()
    given = dict(zip(words[4::2], words[5::2], strict=True))
    assert given == {
        "--preset": "demo",
        "--name": "demo-reverse",
        "--gan.direction": "voice-face",
        "--gan.condition": "label",
        "--gan.l1": "0",
    }
    settings.replace(
        presets.DEMO, gan={"direction": given["--gan.direction"], "l1": float(given["--gan.l1"])}
    )


@pytest.mark.parametrize(
    ("state", "words"),
    [("running", "step 20 of 40"), ("failed", "out of *ink*"), ("stopped", "step 20 of 40")],
)
def test_unfinished_runs_are_named_with_their_state(home, state, words):
    child = trained_runs.start_fake_training()
    try:
        run = trained_runs.fabricate_run(
            state,
            settings.replace(presets.SMOKE, gan=vars(trained_runs.REVERSE_CONFIG.gan)),
            pid=child.pid,
            error="out of *ink*",
        )
        store.update(run, steps=40)
        app = open_page("reverse")
    finally:
        child.kill()
        child.wait()
    text = page_text(app).replace("\\", "")
    assert f"**{state}**" in text
    assert run.id in text
    assert words in text
    assert any(link.proto.query_string == f"run={run.id}" for link in app.get("page_link"))
    assert "no trained run from voices to faces yet" in text


def test_a_damaged_run_is_named(turned):
    the_run().model_path("G").write_bytes(b"cut")
    assert "models/G.safetensors" in page_text(lab()).replace("\\", "")


# --- an example -----------------------------------------------------------------------------------


def test_an_example_gets_a_face_for_each_emotion(turned):
    app = lab(voice="fear", seed="7")
    classes = the_run().config.data.classes
    one = examples.load_voice_example(the_run(), "fear")
    run = generation.load_run(the_run())
    np.testing.assert_array_equal(pictures(app)[0], one.face)  # the clip's own, beside them
    made = generated(app)
    assert len(made) == len(classes)
    for x, emotion in zip(made, classes, strict=True):
        np.testing.assert_array_equal(x, generation.generate_face(run, one.y, emotion, 7))
    assert (
        count_elements(app, "audio"),
        count_elements(app, "plotly_chart"),
        count_elements(app, "download_button"),
    ) == (1, 2, 3)
    assert one.name in page_text(app)
    assert "face classifier" in page_text(app)  # about the run, the right way round
    right = sum(
        generation.classify_samples(run, x[None] / 127.5 - 1)["scorer"][0].argmax() == k
        for k, x in enumerate(made)
    )
    assert f"in {right} of {len(made)}" in page_text(app)
    assert f"noise decides {the_run().json('results')['quality']['diversity']:.2f}" in page_text(
        app
    )


def test_what_is_chosen_is_in_the_address_and_comes_back(turned):
    app = lab()
    app.selectbox(key="reverse voice").set_value("happy").run()
    app.selectbox(key="reverse emotion").set_value("angry").run()
    app.number_input(key="reverse seed").set_value(3).run()
    app.number_input(key="reverse rows").set_value(2).run()
    assert_no_exception(app.button(key="another voice").click().run())
    kept = {k: v[0] if isinstance(v, list) else v for k, v in app.query_params.items()}
    assert kept == {
        "run": the_run().id,
        "voice": "happy",
        "emotion": "angry",
        "seed": "3",
        "rows": "2",
        "take": "1",
    }
    assert len(generated(app)) == 12
    assert "seed 14" in page_markup(app)
    again = open_page("reverse", **kept)
    assert page_markup(again) == page_markup(app)
    second = examples.load_voice_example(the_run(), "happy", 1)
    np.testing.assert_array_equal(
        generated(again)[5],
        generation.generate_face(generation.load_run(the_run()), second.y, "angry", 8),
    )


def test_other_faces_are_the_next_seeds(turned):
    app = lab(emotion="guess")
    first = generated(app)
    assert len(first) == 6
    assert_no_exception(app.button(key="other faces").click().run())
    assert app.number_input(key="reverse seed").value == 6
    assert not any(np.array_equal(a, b) for a in first for b in generated(app))


def test_a_run_that_is_told_p_values_offers_no_emotion(turned):
    app = open_page("reverse", run=the_run("cp").id)
    assert "told **the p-values**" in page_text(app)
    assert [b.key for b in app.selectbox] == ["reverse run", "reverse voice"]
    assert len(generated(app)) == 6


def test_hostile_addresses_are_ignored(turned):
    for text in (HOSTILE_TEXTS[0], "9" * 30, "٣", "-1"):
        app = open_page(
            "reverse", **dict.fromkeys(("run", "voice", "take", "emotion", "rows", "seed"), text)
        )
        assert app.selectbox(key="reverse voice").value == "sad"
        assert app.selectbox(key="reverse run").value in reverse.list_runs()[0]
        assert app.number_input(key="reverse seed").value == 0
        assert app.number_input(key="reverse rows").value == 1
        assert len(text) < 3 or text not in page_markup(app)


# --- a voice of one's own -------------------------------------------------------------------------


VOICE = voices.synthesise_voice(next(t for t in actors.list_takes() if t.emotion == "angry"))


def test_an_upload_is_heard_as_the_run_hears_it(turned):
    app = uploaded("me.wav", wav(VOICE))
    run = generation.load_run(the_run())
    y, gain = generation.voice_spectrogram(run, VOICE)
    assert f"{gain:+.1f} dB" in page_text(app)
    assert "me.wav" in page_text(app).replace("\\", "")
    for x, emotion in zip(generated(app), run.classes, strict=True):
        np.testing.assert_array_equal(x, generation.generate_face(run, y, emotion, 0))
    assert len(pictures(app)) == 6  # nobody knows the speaker's face
    slider = next(s for s in app.slider if s.label.startswith("Heard around"))
    before = generated(app)
    assert_no_exception(slider.set_value(0.5).run())
    assert not np.array_equal(before[0], generated(app)[0])
    assert (
        list(Path(tempfile.gettempdir()).glob(f"{uploads.UPLOAD_FOLDER_PREFIX}{os.getpid()}-*"))
        == []
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.wav", b"This is no sound at all.\n", "not a media file"),
        ("empty.wav", b"", "is empty"),
        ("silence.wav", wav(np.zeros(2 * RATE)), "is silent"),
        ("blip.wav", wav(np.ones(100) / 2), "too short"),
        ("../../<script>alert(1)</script>.wav", wav(np.zeros(RATE)), "script_.wav is silent"),
    ],
    ids=["text", "empty", "silent", "short", "hostile name"],
)
def test_what_is_wrong_with_an_upload_is_said_and_no_file_is_left(turned, name, content, words):
    app = uploaded(name, content)
    wrong = "\n".join(e.value for e in app.error).replace("\\", "")
    assert words in wrong
    assert "<" not in wrong
    assert pictures(app) == []
    assert (
        list(Path(tempfile.gettempdir()).glob(f"{uploads.UPLOAD_FOLDER_PREFIX}{os.getpid()}-*"))
        == []
    )


def test_a_picture_has_no_voice(turned):
    file = io.BytesIO()
    Image.new("L", (64, 64)).save(file, "PNG")
    app = uploaded("face.png", file.getvalue(), "image/png")
    assert "is a picture and has no sound" in app.error[0].value.replace("\\", "")


def test_the_microphone_waits_for_a_voice(turned):
    app = lab()
    assert_no_exception(app.segmented_control(key="reverse kind").set_value("Microphone").run())
    assert count_elements(app, "audio_input") == 1
    assert "will appear here" in page_text(app)


def test_a_sound_is_decoded_apart_as_it_is_here(tmp_path):
    clips.write_clip(tmp_path / "clip.mp4", np.zeros((5, 32, 32, 3), np.uint8), 5, VOICE[:RATE])
    (tmp_path / "voice.wav").write_bytes(wav(VOICE))
    for path in (tmp_path / "clip.mp4", tmp_path / "voice.wav"):
        heard = sandbox.read_clip(path, containers.Limits(frames=0))
        np.testing.assert_array_equal(heard.waveform, clips.read_waveform(path))
        assert len(heard.frames) == len(heard.times) == 0
    with pytest.raises(containers.MediaError, match="sound only"):
        sandbox.read_clip(tmp_path / "voice.wav")


# --- what is taken away; core ---------------------------------------------------------------------


def test_files_hold_what_the_page_shows(turned):
    app, classes = lab(rows="2"), the_run().config.data.classes
    shown, run = generated(app), generation.load_run(the_run())
    verdicts = generation.classify_samples(run, np.stack(shown) / 127.5 - 1)["scorer"]
    made = [
        reverse.GeneratedFace(classes[i % 6], i // 6, x, o)
        for i, (x, o) in enumerate(zip(shown, verdicts, strict=True))
    ]
    array = np.load(io.BytesIO(reverse.faces_npy(made)))
    np.testing.assert_array_equal(array, shown)
    big = np.asarray(Image.open(io.BytesIO(reverse.faces_png(made, 6))))
    assert big.shape == (2 * 280 + 10, 6 * 280 + 50)
    np.testing.assert_array_equal(big[290::10, 290:570:10], array[7])
    lines = list(csv.DictReader(io.StringIO(reverse.faces_csv(run.run.id, made, classes))))
    assert [(k["told"], k["seed"]) for k in lines] == [(one.told, str(one.seed)) for one in made]
    assert lines[4]["seen as"] == classes[int(verdicts[4].argmax())]
    alts = re.findall(r'alt="generated face, told (\w+), seed (\d+)"', page_markup(app))
    assert alts == [(one.told, str(one.seed)) for one in made]


def test_examples_are_the_clips_of_s4_by_turns(turned):
    run = the_run()
    one, two = (
        examples.load_voice_example(run, "disgust"),
        examples.load_voice_example(run, "disgust", 1),
    )
    assert one.name.split("_")[1] != two.name.split("_")[1]  # other people
    take = next(t for t in actors.list_takes(run.config.data.demo_takes) if t.clip_id == one.name)
    assert f"demo-{take.actor:02d}" in run.json("results")["subjects"]["S4"]
    np.testing.assert_array_equal(one.wave, voices.synthesise_voice(take))
    np.testing.assert_array_equal(
        one.face,
        alignment.align(
            *expressions.render_face(take, t=spectrograms.centre_time(len(one.wave) / RATE))
        ),
    )
    assert examples.load_voice_example(run, "disgust", one.of).name == one.name
    with pytest.raises(ValueError, match="knows no voice of 'hungry'"):
        examples.load_voice_example(run, "hungry")
    with pytest.raises(ValueError, match="choose a run that makes voices"):
        examples.load_face_example(run, "happy")
    (run.directory / "config.json").write_text(
        (run.directory / "config.json").read_text().replace("voice-face", "face-voice")
    )
    with pytest.raises(ValueError, match="choose a run that makes faces"):
        examples.load_voice_example(Run(run.directory), "happy")


def test_its_card_speaks_of_faces(turned):
    run = the_run()
    card = export.model_card(run)
    assert "makes an aligned 28×28 face from the 112×28 log-mel spectrogram of a voice" in card
    assert "the face is nobody's" in card
    assert (
        f"- voice classifier on S4: {100 * run.json('results')['voice']['accuracy']:.1f} %" in card
    )
    assert "Credibility and confidence hold for voices" in card
    assert "not that person's voice" not in card
