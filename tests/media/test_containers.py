"""Kinds of files by their content, and one clock for picture and sound."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from core.media import clips, containers, probe
from core.media.containers import MediaError, UnreadableError
from tests.support.media_files import RATE, pictures, tone, write


def pitch(wave):
    return np.abs(np.fft.rfft(wave)).argmax() * RATE / len(wave)


@pytest.mark.parametrize(
    ("kind", "form", "subtype"),
    [
        ("aiff", "AIFF", "PCM_16"),
        ("caf", "CAF", "PCM_16"),
        ("au", "AU", "PCM_16"),
        ("w64", "W64", "PCM_16"),
        ("ogg", "OGG", "OPUS"),
        ("ogg", "OGG", "VORBIS"),
        ("wav", "RF64", "PCM_24"),
        ("nist", "NIST", "PCM_16"),
        ("mp3", "MP3", "MPEG_LAYER_III"),
    ],
)
def test_sounds_of_many_kinds_are_read(tmp_path, kind, form, subtype):
    path = tmp_path / "voice"  # the name says nothing
    soundfile.write(path, tone(), RATE, subtype, format=form)
    assert containers.read_media(path, "x")[0] == kind
    assert pitch(clips.read_waveform(path)[1000:15_000]) == pytest.approx(440, abs=3)
    assert probe.audio_info(path, kind).seconds == pytest.approx(1, abs=0.05)


def encoded(form, endian=None):
    file = io.BytesIO()
    soundfile.write(file, tone(), RATE, endian=endian, format=form)
    return file.getvalue()


def adts():
    file = io.BytesIO()
    with av.open(file, "w", format="adts") as box:
        stream = box.add_stream("aac", rate=RATE, layout="mono")
        sound = av.AudioFrame.from_ndarray(tone()[None], format="fltp", layout="mono")
        sound.sample_rate = RATE
        box.mux(stream.encode(sound))
        box.mux(stream.encode(None))
    return file.getvalue()


ID3 = b"ID3\x04\0\0\0\0\0\x20" + bytes(32)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("wav", lambda: encoded("WAV", "BIG")),  # RIFX
        ("mp3", lambda: bytes(300) + encoded("MP3")),  # as some writers pad
        ("aac", lambda: ID3 + adts()),
        ("flac", lambda: 2 * ID3 + encoded("FLAC")),
        ("mp3", lambda: ID3 + encoded("MP3")),
    ],
    ids=["rifx", "zeros before mp3", "id3 before aac", "id3 twice before flac", "id3 before mp3"],
)
def test_sounds_with_something_before_them_are_read(kind, content):
    data = content()
    assert containers.read_media(data, "x")[0] == kind
    assert pitch(clips.read_waveform(data)[1000:15_000]) == pytest.approx(440, abs=3)
    assert probe.audio_info(data, kind).start is not None


@pytest.mark.parametrize("scale", [3.0, 32_767.0])
def test_floats_of_another_scale_are_refused_and_not_cut_off(tmp_path, scale):
    path = tmp_path / "voice.wav"
    soundfile.write(path, 2 * scale * tone(), RATE, "FLOAT")
    for read in (clips.read_waveform, lambda p: probe.audio_info(p, "wav")):
        with pytest.raises(MediaError, match=f"has samples up to {scale:,.0f}, where 1 is full"):
            read(path)
    soundfile.write(path, 3.0 * tone(), RATE, "FLOAT")  # an overshoot of 1.5
    assert np.abs(clips.read_waveform(path)).max() == 1


def test_a_damaged_sound_is_not_to_be_exported_as_a_film():
    with pytest.raises(MediaError, match="Export it again as wav"):
        clips.read_waveform(b"caff" + bytes(200), name="a.caf")


def test_amr_of_a_telephone_is_read(tmp_path):
    frame = bytes([0x3C]) + bytes(np.random.default_rng(0).integers(0, 256, 31).tolist())
    (tmp_path / "call.amr").write_bytes(b"#!AMR\n" + frame * 50)
    assert len(clips.read_waveform(tmp_path / "call.amr")) == pytest.approx(16_000, rel=0.1)


@pytest.mark.parametrize("size", [188, 192])
def test_transport_streams_with_and_without_time_codes(tmp_path, size):
    write(tmp_path / "plain.ts", "libx264", sound=tone(1.0, 44_100))
    content = (tmp_path / "plain.ts").read_bytes()
    packets = [content[i : i + 188] for i in range(0, len(content), 188)]
    if size == 192:  # AVCHD: four bytes of time code before each packet
        packets = [struct.pack(">I", 900 * i) + p for i, p in enumerate(packets)]
    clip = clips.read_clip(b"".join(packets), name="camcorder.mts")
    assert len(clip.frames) == 13
    assert pitch(clip.waveform[2000:12_000]) == pytest.approx(440, abs=3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\3\4" + bytes(99), "but a zip archive"),
        (b"Rar!\x1a\7" + bytes(99), "but a rar archive"),
        (b"\x1f\x8b\x08" + bytes(99), "but a gz archive"),
        (b"%PDF-1.7" + bytes(99), "but a PDF document"),
        (b"hello\n" * 9, "but text"),
        (bytes(range(200, 255)) * 9, "of a kind that is read here"),
    ],
)
def test_what_is_no_medium_is_called_what_it_is(content, words):
    with pytest.raises(MediaError, match=words) as caught:
        clips.read_clip(content, name="x.mp4")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("content", [b"RIFF", b"\0\0\0\x18", b"\x89PN"])
def test_the_first_bytes_of_a_file_are_called_cut(content):
    with pytest.raises(MediaError, match=f"ends after {len(content)} bytes. Copy or record it"):
        clips.read_clip(content, name="x.mp4")


def test_a_file_that_the_machine_cannot_read_is_not_the_clips_fault(tmp_path, monkeypatch):
    for read in (clips.read_clip, clips.read_waveform):
        with pytest.raises(UnreadableError, match="cannot be read"):
            read(tmp_path / "gone.mp4")


def shifted(path, sound_start=0.0, picture_start=0.0):
    """A film of 2 s whose streams begin at these seconds."""
    wave, frames = tone(2.0), pictures(50)
    with av.open(str(path), "w") as box:
        video = box.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = box.add_stream("aac", rate=RATE, layout="mono")
        packets = []
        for k, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = round(1000 * picture_start + 40 * k), Fraction(1, 1000)
            packets += video.encode(picture)
        packets += video.encode(None)
        sound = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts = RATE, round(sound_start * RATE)
        sound.time_base = Fraction(1, RATE)
        packets += audio.encode(sound) + audio.encode(None)
        for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base)):
            box.mux(packet)
    return path


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(("sound", "picture"), [(1.2, 0.0), (0.0, 1.0), (0.0, 0.0), (3.0, 0.0)])
def test_streams_that_begin_apart_are_whole_and_on_one_clock(tmp_path, ending, sound, picture):
    path = shifted(tmp_path / f"film.{ending}", sound, picture)
    clip = clips.read_clip(path)
    assert not any("cut short" in note for note in clip.notes)
    lead = np.flatnonzero(np.abs(clip.waveform) > 0.1)[0] / RATE
    assert lead - clip.times[0] == pytest.approx(sound - picture, abs=0.12)
    info = probe.video_info(path, containers.read_media(path, "x")[0])
    assert info.whole_seconds > 0.95 * info.header_seconds - 0.3
    late = max(sound - picture, 0)
    assert probe.sound_lead(path.read_bytes()) == pytest.approx(late, abs=0.12)


def test_a_film_that_is_cut_is_still_called_so(tmp_path):
    path = tmp_path / "whole.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (50, 96, 128, 3), np.uint8)
    write(path, "libx264", frames, tone(2.0, 44_100), options={"movflags": "faststart"})
    content = path.read_bytes()
    clip = clips.read_clip(content[: len(content) // 2], name="x")
    assert any("cut short" in note for note in clip.notes)
