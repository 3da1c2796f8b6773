"""Clips are read from files that the tests write, and from real clips where they are at hand."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from core.media import clips, containers
from core.media.containers import Limits, MediaError
from tests.support.face_pictures import real
from tests.support.media_files import POINTER, RATE, pictures, refused, tone, write

ROOT = Path(__file__).resolve().parents[2]


def corner(frame: np.ndarray, vertical: str, horizontal: str) -> float:
    h, w = frame.shape[:2]
    rows = slice(2, h // 4 - 4) if vertical == "upper" else slice(-h // 4 + 4, -2)
    columns = slice(2, w // 4 - 4) if horizontal == "left" else slice(-w // 4 + 4, -2)
    return float(frame[rows, columns].mean())


def pitch(waveform: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * rate / len(waveform))


CONTAINERS = [
    ("a.mp4", "libx264", "aac", "yuv420p", 44_100),
    ("a.mov", "libx264", "aac", "yuv420p", 48_000),
    ("hevc10.mp4", "libx265", "aac", "yuv420p10le", 48_000),
    ("a.avi", "mpeg4", "mp3", "yuv420p", 44_100),
    ("a.mpg", "mpeg1video", "mp2", "yuv420p", 44_100),
    ("a.flv", "flv", "mp3", "yuv420p", 44_100),
    ("a.webm", "libvpx", "libopus", "yuv420p", 48_000),
    ("a.ts", "libx264", "aac", "yuv420p", 44_100),
]


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container[0])
def test_every_container_gives_the_same_frames_and_sound(tmp_path, container):
    name, codec, audio, pix, rate = container
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    options = {"x265-params": "log-level=none"} if codec == "libx265" else None
    settings = {"audio": audio, "pix": pix, "rate": rate, "options": options}
    write(tmp_path / name, codec, sound=tone(1.0, rate), **settings)
    clip = clips.read_clip(tmp_path / name, need_sound=True)
    assert (clip.name, clip.is_still, clip.rate, clip.notes) == (name, False, RATE, ())
    assert (clip.frames.shape, clip.frames.dtype) == ((len(clip.times), 96, 128, 3), np.uint8)
    assert 11 <= len(clip.times) <= 13
    assert np.diff(clip.times) == pytest.approx(0.08, abs=0.011)
    assert 0 <= clip.times[0] < 0.1
    assert corner(clip.frames[3], "upper", "left") > 235
    assert corner(clip.frames[3], "lower", "left") < 20
    # The brightness tells which frame is shown when.
    shown = (clip.frames[:, 40:56, 100:].mean((1, 2, 3)) - 60) / 120 * 24 / 25
    assert clip.times - clip.times[0] == pytest.approx(shown - shown[0], abs=0.06)
    assert (clip.waveform.dtype, clip.waveform.ndim) == (np.float32, 1)
    assert len(clip.waveform) / RATE == pytest.approx(1.0, abs=0.12)
    assert pitch(clip.waveform[2000:12_000]) == pytest.approx(440, abs=3)
    assert np.abs(clip.waveform[4000:12_000]).max() == pytest.approx(0.5, abs=0.06)
    alone = clips.read_waveform(tmp_path / name)
    assert alone == pytest.approx(clip.waveform[-len(alone) :], abs=0.02)


def test_a_webm_as_browsers_record_it_has_no_duration(tmp_path):
    path, frames = tmp_path / "blob.webm", np.repeat(pictures(25), 2, axis=0)
    settings = {"audio": "libopus", "rate": 48_000, "options": {"live": "1"}}
    write(path, "libvpx", frames, tone(2.0, 48_000), pts=list(range(0, 2000, 40)), **settings)
    with av.open(str(path)) as box:
        assert box.duration is None
    clip = clips.read_clip(path, need_sound=True)
    assert (len(clip.frames), clip.notes) == (25, ())
    assert clip.times[-1] == pytest.approx(1.92, abs=0.06)
    assert len(clip.waveform) / RATE == pytest.approx(2.0, abs=0.05)


def test_variable_frame_rate_keeps_true_times(tmp_path):
    stamps = [0, 40, 80, 500, 540, 1500, 1540, 1580, 1620, 2600]
    write(tmp_path / "vfr.mp4", "libx264", pictures(len(stamps)), pts=stamps)
    clip = clips.read_clip(tmp_path / "vfr.mp4")
    kept = set(np.round(clip.times * 1000).astype(int).tolist())
    assert {0, 500, 1500, 2600} <= kept <= set(stamps) - {40}
    assert len(kept) == len(clip.frames)


def test_times_that_jump_are_counted_by_the_frame_rate(tmp_path):
    stamps = [k * 40 + (1_000_000 if k > 10 else 0) for k in range(25)]
    write(tmp_path / "jump.mp4", "libx264", pictures(25), pts=stamps)
    clip = clips.read_clip(tmp_path / "jump.mp4")
    assert clip.times[-1] < 11
    assert (np.diff(clip.times) > 0).all()
    assert any("timestamps" in note for note in clip.notes)


@pytest.mark.parametrize(
    ("matrix", "vertical", "horizontal", "turned"),
    [
        ((0, 1, -1, 0), "upper", "right", 90),
        ((-1, 0, 0, -1), "lower", "right", 180),
        ((0, -1, 1, 0), "lower", "left", 270),
    ],
    ids=["phone upright", "upside down", "phone upside down"],
)
def test_the_display_matrix_turns_phone_clips_upright(
    tmp_path, matrix, vertical, horizontal, turned
):
    path = write(tmp_path / "turned.mp4", "libx264")
    content = bytearray(path.read_bytes())
    # QuickTime's track header has x' = a x + c y, y' = b x + d y as the 16.16 numbers
    # a b u / c d v / x y w, 44 bytes after its name.
    at = content.index(b"tkhd") + 44
    a, b, c, d = (m << 16 for m in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    clip = clips.read_clip(path)
    assert clip.frames.shape[1:3] == ((128, 96) if matrix[0] == 0 else (96, 128))
    assert corner(clip.frames[0], vertical, horizontal) > 235
    assert f"turned by {turned} degrees clockwise, as the file asks" in clip.notes


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    write(tmp_path / "sar.mp4", "libx264", shape=Fraction(3, 2))
    assert clips.read_clip(tmp_path / "sar.mp4").frames.shape[1:3] == (96, 192)


def test_stereo_is_the_mean_of_its_channels(tmp_path):
    sound = np.stack([tone(1.0, 44_100), np.zeros(44_100, np.float32)])
    write(tmp_path / "stereo.mp4", "mpeg4", sound=sound)
    waveform = clips.read_clip(tmp_path / "stereo.mp4").waveform
    assert np.abs(waveform[4000:12_000]).max() == pytest.approx(0.25, abs=0.02)
    soundfile.write(tmp_path / "stereo.wav", sound.T, 44_100)
    waveform = clips.read_waveform(tmp_path / "stereo.wav")
    assert np.abs(waveform[4000:12_000]).max() == pytest.approx(0.25, abs=0.005)


def test_limits_thin_shorten_and_scale(tmp_path):
    write(tmp_path / "long.mp4", "mpeg4", np.repeat(pictures(25), 6, axis=0), tone(6.0, 44_100))
    clip = clips.read_clip(tmp_path / "long.mp4", Limits(seconds=3, side=64, frames=10))
    assert (clip.frames.shape[1:3], len(clip.waveform)) == ((48, 64), 3 * RATE)
    assert 5 <= len(clip.frames) <= 10
    assert 2.3 < clip.times[-1] <= 3  # thinned over the whole length, not cut off
    assert np.ptp(np.diff(clip.times)) < 0.05
    assert [note.split(":")[0] for note in clip.notes] == ["longer than 3 s", "long"]
    assert len(clips.read_waveform(tmp_path / "long.mp4", limits=Limits(seconds=2))) == 2 * RATE


def test_files_beyond_the_limits_are_refused(tmp_path):
    path = write(tmp_path / "big.mp4", "mpeg4")
    refused(r"big\.mp4 has .* MiB", clips.read_clip, path, Limits(bytes=1000))
    refused(r"big\.mp4 has 128 x 96 pixels", clips.read_clip, path, Limits(pixels=100 * 100))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_stills_are_one_frame(tmp_path, suffix):
    path = tmp_path / f"still.{suffix}"
    Image.fromarray(pictures(1)[0]).save(path)
    clip = clips.read_clip(path)
    assert (clip.is_still, clip.waveform, clip.notes) == (True, None, ())
    assert (clip.times.tolist(), clip.frames.shape) == ([0.0], (1, 96, 128, 3))
    assert corner(clip.frames[0], "upper", "left") > 235
    refused("no sound", clips.read_clip, path, need_sound=True)
    refused("no sound", clips.read_waveform, path)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to show"
    Image.fromarray(pictures(1)[0]).save(tmp_path / "phone.jpg", exif=exif)
    clip = clips.read_clip(tmp_path / "phone.jpg")
    assert clip.frames.shape == (1, 128, 96, 3)
    assert corner(clip.frames[0], "upper", "right") > 235
    assert any("EXIF" in note for note in clip.notes)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_all_colour_modes_become_rgb(tmp_path, mode):
    grey = pictures(1)[0, :, :, 0]
    image = Image.fromarray(grey).convert("RGB")
    image = Image.fromarray(grey * np.uint16(257)) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "mode.tiff")
    frame = clips.read_clip(tmp_path / "mode.tiff").frames[0]
    assert frame.shape == (96, 128, 3)
    assert corner(frame, "upper", "left") > 235
    assert corner(frame, "lower", "left") < 20


def test_large_stills_are_scaled_and_tiny_ones_refused(tmp_path):
    Image.fromarray(pictures(1, 900, 1200)[0]).save(tmp_path / "large.jpg")
    assert clips.read_clip(tmp_path / "large.jpg").frames.shape == (1, 480, 640, 3)
    Image.new("RGB", (2, 2)).save(tmp_path / "tiny.png")
    refused(r"tiny\.png has only 2 x 2 pixels", clips.read_clip, tmp_path / "tiny.png")


@pytest.mark.parametrize("side", [7_000, 30_000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, side):
    def chunk(name: bytes, body: bytes) -> bytes:
        length, checksum = (struct.pack(">I", n) for n in (len(body), zlib.crc32(name + body)))
        return length + name + body + checksum

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(3 * side))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + data)
    refused(r"bomb\.png has .*pixels", clips.read_clip, tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.mp4", b"", "is empty"),
        ("text.mp4", b"This is a letter, not a film.\n", "not a media file but text"),
        ("noise.mp4", bytes(range(1, 256)) * 40, "not a media file"),
        ("pointer.flv", POINTER, "git lfs pull"),
        ("list.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/hosts\n", "but text"),
        ("script.mp4", b"ffconcat version 1.0\nfile '/etc/hosts'\n", "not a media file but text"),
        ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "Save it again as jpg"),
        ("stub.mp4", b"\0\0\0\x18ftypisom\0\0\0\0isomiso2", "damaged or cut short"),
        ("stub.jpg", b"\xff\xd8\xff\xe0" + bytes(50), "damaged picture"),
        ("stub.wav", b"RIFF\0\0\0\0WAVE", "no picture"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_what_is_not_media_is_named_with_the_fix(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MediaError) as caught:
        clips.read_clip(tmp_path / name)
    assert str(caught.value).startswith(f"{name} ")
    assert says in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(MediaError):
        clips.read_waveform(tmp_path / name)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for read in (clips.read_clip, clips.read_waveform):
        refused(r"gone\.mp4", read, tmp_path / "gone.mp4")
        refused("cannot be read", read, tmp_path)


def test_the_name_shown_is_the_one_given(tmp_path):
    (tmp_path / "0f3a").write_bytes(POINTER)
    path, message = tmp_path / "0f3a", r"^my clip\.flv is a git-lfs pointer"
    refused(message, clips.read_clip, path, name="my clip.flv")


def test_a_cut_clip_is_read_as_far_as_it_goes(tmp_path):
    # Noise, so that the bytes are spread over the clip.
    frames = np.random.default_rng(0).integers(0, 256, (50, 96, 128, 3), np.uint8)
    sound, options = tone(2.0, 44_100), {"movflags": "faststart"}
    content = write(tmp_path / "whole.mp4", "libx264", frames, sound, options=options).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    clip = clips.read_clip(tmp_path / "cut.mp4")
    assert 5 < len(clip.frames) < 20
    assert any("cut short" in note and "of 2.0 s" in note for note in clip.notes)
    (tmp_path / "stump.mp4").write_bytes(content[: content.index(b"mdat") + 40])
    refused(r"stump\.mp4 is damaged or cut short", clips.read_clip, tmp_path / "stump.mp4")
    plain = write(tmp_path / "plain.mp4", "libx264", frames, options={"movflags": "0"}).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(plain[: len(plain) // 2])  # its index was at the end
    refused(r"headless\.mp4 is damaged or cut short", clips.read_clip, tmp_path / "headless.mp4")


def test_damage_in_the_middle_costs_only_some_frames(tmp_path):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (50, 96, 128, 3), np.uint8)
    path = write(tmp_path / "hurt.avi", "mpeg4", frames, tone(2.0, 44_100), audio="mp3")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = rng.integers(0, 256, 3000, np.uint8).tobytes()
    path.write_bytes(content)
    clip = clips.read_clip(path)
    assert len(clip.frames) > 10
    assert (np.diff(clip.times) > 0).all()
    assert np.isfinite(clip.waveform).all()


def test_sound_without_picture_and_picture_without_sound(tmp_path):
    write(tmp_path / "voice.mp4", frames=np.empty(0), sound=tone(1.0, 44_100))
    soundfile.write(tmp_path / "voice.wav", tone(), RATE)
    for name in ("voice.mp4", "voice.wav"):
        refused(rf"{name} .*no picture", clips.read_clip, tmp_path / name)
        assert pitch(clips.read_waveform(tmp_path / name)[2000:12_000]) == pytest.approx(440, abs=3)
    path = write(tmp_path / "silent film.mp4")
    clip = clips.read_clip(path)
    assert clip.waveform is None
    assert "has no sound" in clip.notes
    refused(r"silent film\.mp4 has no sound", clips.read_clip, path, need_sound=True)
    refused(r"silent film\.mp4 has no sound", clips.read_waveform, path)


def test_silence_is_remarked(tmp_path):
    write(tmp_path / "mute.mp4", sound=np.zeros(44_100, np.float32))
    clip = clips.read_clip(tmp_path / "mute.mp4", need_sound=True)
    assert (clip.notes, clip.waveform.any()) == (("the sound is silent",), False)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_sound_files(tmp_path, suffix):
    soundfile.write(tmp_path / f"voice.{suffix}", tone(1.0, 48_000), 48_000)
    waveform = clips.read_waveform(tmp_path / f"voice.{suffix}")
    assert waveform.dtype == np.float32
    assert len(waveform) / RATE == pytest.approx(1.0, abs=0.08)
    assert pitch(waveform[2000:12_000]) == pytest.approx(440, abs=3)


def test_a_chunk_before_the_data_is_skipped(tmp_path):
    soundfile.write(tmp_path / "plain.wav", tone(), RATE, subtype="PCM_16")
    content = (tmp_path / "plain.wav").read_bytes()
    at = content.index(b"data")
    # RAVDESS' files have such a chunk.
    body = content[:at] + b"FLLR" + struct.pack("<I", 4000) + bytes(4000) + content[at:]
    (tmp_path / "fllr.wav").write_bytes(body[:4] + struct.pack("<I", len(body) - 8) + body[8:])
    plain = clips.read_waveform(tmp_path / "plain.wav")
    assert (clips.read_waveform(tmp_path / "fllr.wav") == plain).all()
    assert plain == pytest.approx(tone(), abs=1e-4)


def test_resampling_keeps_the_band_and_removes_what_would_fold(tmp_path):
    from scipy.signal import resample_poly

    rng = np.random.default_rng(0)
    wave = (0.1 * rng.standard_normal(48_000)).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", wave, 48_000, subtype="FLOAT")
    ours, theirs = clips.read_waveform(tmp_path / "noise.wav"), resample_poly(wave, 1, 3)
    assert len(ours) == len(theirs) == 16_000
    # Below 7 kHz, away from the ends.
    ours, theirs = (np.fft.rfft(x[200:-200])[:6_800] for x in (ours, theirs))
    assert np.abs(ours - theirs).mean() < 0.02 * np.abs(theirs).mean()
    soundfile.write(tmp_path / "high.wav", tone(1.0, 48_000, hz=12_000), 48_000, subtype="FLOAT")
    alias = clips.read_waveform(tmp_path / "high.wav")[200:-200]  # at 4 kHz, if not removed
    assert np.abs(alias).max() < 0.005


def test_wild_samples_are_brought_into_range(tmp_path):
    wave = tone() * 4
    wave[100] = np.nan
    wave[200] = np.inf
    soundfile.write(tmp_path / "wild.wav", wave, RATE, subtype="FLOAT")
    got = clips.read_waveform(tmp_path / "wild.wav")
    assert np.isfinite(got).all()
    assert np.abs(got).max() == 1.0


def test_sound_that_starts_later_is_kept_on_the_pictures_clock(tmp_path):
    path, sound = tmp_path / "late.mkv", {"audio": "pcm_f32le", "rate": RATE, "start": RATE // 2}
    clip = clips.read_clip(write(path, frames=pictures(50), sound=tone(), **sound))
    assert clip.times[0] == 0
    assert not clip.waveform[:7900].any()
    assert np.abs(clip.waveform[8100:]).max() > 0.4
    assert len(clip.waveform) == pytest.approx(1.5 * RATE, abs=50)


HEAVY = {"torch", "streamlit", "librosa", "scipy", "soundfile", "skimage"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("clips", HEAVY | {"core.media.faces.detection"}),
        ("faces.alignment", HEAVY | {"ai_edge_litert", "mediapipe", "av", "core.media.clips"}),
    ],
)
def test_importing_is_quick_and_light(module, unwanted):
    start = "import sys, time; t = time.perf_counter()"
    code = f"{start}; import core.media.{module}; print(time.perf_counter() - t, *sys.modules)"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    seconds, *modules = out.split()
    assert not unwanted & set(modules)
    assert float(seconds) < 2.0  # 0.2 s on an idle machine


def test_written_clips_come_back(tmp_path):
    frames = pictures(25, 95, 127)  # odd sides, which video does not take
    clips.write_clip(tmp_path / "demo.mp4", frames, 12.5, tone(2.0), RATE)
    clip = clips.read_clip(tmp_path / "demo.mp4", need_sound=True)
    assert (clip.frames.shape, clip.notes) == ((25, 96, 128, 3), ())
    assert np.abs(clip.frames[:, :95, :127].astype(int) - frames).mean() < 4
    assert clip.times == pytest.approx(np.arange(25) * 0.08, abs=0.002)
    assert len(clip.waveform) / RATE == pytest.approx(2.0, abs=0.1)
    assert np.corrcoef(clip.waveform[2000:30_000], tone(2.0)[2000:30_000])[0, 1] > 0.98
    assert [path.name for path in tmp_path.iterdir()] == ["demo.mp4"]
    clips.write_clip(tmp_path / "mute.mp4", frames, 25)
    assert clips.read_clip(tmp_path / "mute.mp4").waveform is None


def test_kinds_are_told_by_content(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "misnamed.mp4", format="PNG")
    assert containers.sniff_kind((tmp_path / "misnamed.mp4").read_bytes()) == "png"
    assert clips.read_clip(tmp_path / "misnamed.mp4").is_still
    kinds = {POINTER: "lfs", b"": "empty", b"hello": "text", b"\x93\x01\x02": "unknown"}
    assert {head: containers.sniff_kind(head) for head in kinds} == kinds


def test_real_clips_are_read():
    patterns = "crema-d/VideoFlash/*.flv", "grid/*.mpg", "ravdess_video/*.mp4"
    for path in (path for pattern in patterns for path in real(pattern)):
        clip = clips.read_clip(path, need_sound=True)
        assert (clip.notes, len(clip.frames) >= 20) == ((), True), path
        assert clip.frames[0].std() > 20, path
        assert min(np.diff(clip.times).min(), np.abs(clip.waveform).max()) > 0.05, path
        assert abs(len(clip.waveform) / RATE - clip.times[-1]) < 0.2, path


def test_the_sound_of_a_crema_flv_is_its_wav():
    for path in real("crema-d/VideoFlash/*.flv"):
        wav = clips.read_waveform(path.parents[1] / "AudioWAV" / f"{path.stem}.wav")
        flv = clips.read_clip(path).waveform
        assert len(wav) == len(flv), path
        assert np.corrcoef(wav, flv)[0, 1] > 0.99, path


def test_of_large_frames_fewer_are_kept(tmp_path):
    frames = np.zeros((60, 96, 128, 3), np.uint8)
    clips.write_clip(tmp_path / "x.mp4", frames, 12, None)
    small = Limits(kept_bytes=40 * 96 * 128 * 3)
    kept = clips.read_clip(tmp_path / "x.mp4", small).frames
    assert 20 <= len(kept) <= 40
    assert len(clips.read_clip(tmp_path / "x.mp4").frames) == 60


def test_of_a_film_of_large_frames_the_beginning_is_read_and_that_is_said(tmp_path):
    """What decoding costs grows with the frames' pixels, of which a film or gif may hold any."""
    frames = np.zeros((60, 96, 128, 3), np.uint8)
    clips.write_clip(tmp_path / "x.mp4", frames, 12, None)
    limits = Limits(decoded_pixels=24 * 96 * 128)
    clip = clips.read_clip(tmp_path / "x.mp4", limits)
    assert len(clip.frames) == 24
    assert "large frames: only the first 2.0 s were read" in clip.notes
    near = clips.read_clip(tmp_path / "x.mp4", replace(limits, near=4.0))
    assert near.times == pytest.approx([4.0], abs=0.05)  # one frame, wherever it is
