"""Corpora of full size with invented content, for tests.

Every official name, each file another, with the published traps and some more.

A film or sound is made once and copied with another title in its header: 14,884 files cost seconds,
and `read_once` reads what differs by its title alone once.
Both builders return the folder and what `doctor.examine_corpus` must report of it: kind of fault ->
names.
"""

import contextlib
import csv
import functools
import io
import re
import shutil
import struct
import tempfile
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from core.data import corpora
from core.data.demo import actors, expressions, recordings
from core.media import clips
from tests.support.file_trees import write_files

SAMPLE_RATE = 16_000  # Hz
TITLE_PLACEHOLDER = "a title of 40 characters to be replaced."
TITLE_PATTERN = re.compile(rb"title:.{34}", re.DOTALL)
TITLE_CHUNK = struct.pack("<4sI4s4sI", b"LIST", 52, b"INFO", b"INAM", 40)  # of a wav
TITLE_CHUNK += TITLE_PLACEHOLDER.encode()
ExpectedFaults = dict[str, set[str]]
# Of the faults that are known, and some more
RAVDESS_ACTORS = {"01", "02", "03", "05", "07", "09", "10"}
CREMA_ACTORS = {str(n) for n in (*range(1001, 1021), 1040, 1064, 1076, 1091)}


@contextlib.contextmanager
def spacious_folder(fallback: Path) -> Iterator[Path]:
    """A folder for a tree, gone afterwards.

    In memory where there is room, as some disks take a minute to remove 15,000 files.
    """
    memory = Path("/dev/shm")
    there = memory if memory.is_dir() and shutil.disk_usage(memory).free > 2**31 else fallback
    with tempfile.TemporaryDirectory(dir=there, prefix="tree-") as folder:
        yield Path(folder)


@functools.cache
def face_frames(clip: Path | None, count: int = 12) -> np.ndarray:
    """(count, 72, 96, 3) uint8 with a face, read-only.

    Of a real clip, or of the invented corpus where there is none.
    """
    if clip:
        frames = list(clips.read_clip(clip).frames[:count])
    else:
        take, rate = actors.list_takes()[0], recordings.FRAME_RATE
        frames = [expressions.render_face(take, t=k / rate, size=320)[0] for k in range(count)]
    small = [Image.fromarray(f).resize((96, 72) if clip else (72, 72)) for f in frames]
    out = np.zeros((count, 72, 96, 3), np.uint8)
    for i in range(count):
        picture = np.asarray(small[i % len(small)])
        out[i, :, (96 - picture.shape[1]) // 2 :][:, : picture.shape[1]] = picture
    out.flags.writeable = False
    return out


def encode_film(
    kind: str, frames: np.ndarray, fps: int = 10, sound: bool = True, loud: float = 0.05
) -> bytes:
    """A small flv or mp4 whose title is TITLE, with noise for a sound of the same length."""
    file = io.BytesIO()
    codec, options = (
        ("flv", {"q": "8"}) if kind == "flv" else ("libx264", {"crf": "30", "preset": "veryfast"})
    )
    with av.open(file, "w", format=kind) as box:
        box.metadata["title"] = TITLE_PLACEHOLDER
        video = box.add_stream(codec, rate=Fraction(fps), options=options)
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        audio = (
            box.add_stream(
                "mp3" if kind == "flv" else "aac", rate=22_050, layout="mono", options={"b": "16k"}
            )
            if sound
            else None
        )
        packets = [
            p for f in frames for p in video.encode(av.VideoFrame.from_ndarray(f, format="rgb24"))
        ] + video.encode(None)
        if audio:
            wave = (
                np.random.default_rng(0)
                .normal(0, loud, (1, len(frames) * 22_050 // fps))
                .astype(np.float32)
            )
            part = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            part.sample_rate, part.pts, part.time_base = 22_050, 0, Fraction(1, 22_050)
            packets += audio.encode(part) + audio.encode(None)
        box.mux(sorted(packets, key=lambda p: p.dts * p.time_base))
    return file.getvalue()


def replace_title(content: bytes, title: str) -> bytes:
    """The same film or sound, another file."""
    assert content.count(TITLE_PLACEHOLDER.encode()) == 1
    new = f"title:{title[-34:]}".ljust(len(TITLE_PLACEHOLDER))
    return content.replace(TITLE_PLACEHOLDER.encode(), new.encode())


def read_once(read: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a file's bytes that reads files which differ by their titles alone once."""
    facts: dict[tuple, Any] = {}

    def known(content: bytes, *options: Any) -> Any:
        key = TITLE_PATTERN.sub(b"", content, count=1), *options
        if key not in facts:
            facts[key] = read(content, *options)
        return facts[key]

    return known


def encode_wav(samples: np.ndarray, rate: int = SAMPLE_RATE, before: bytes = b"") -> bytes:
    """(T,) or (T, channels) int16 as a wav, with other chunks before its data if wanted."""
    channels, data = 1 if samples.ndim == 1 else samples.shape[1], samples.astype("<i2").tobytes()
    form = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, 2 * rate * channels, 2 * channels, 16
    )
    body = b"WAVE" + form + before + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


class NoiseSource:
    """Sounds that are all different, of a seed: stretches of one noise."""

    def __init__(self, seed: int = 0, most: int = 20_000) -> None:
        self.samples = (
            np.random.default_rng(seed)
            .normal(0, 1_600, 16 * most)
            .clip(-30_000, 30_000)
            .astype(np.int16)
        )
        self.at = 0

    def __call__(self, seconds: float = 1.1, rate: int = SAMPLE_RATE) -> np.ndarray:
        self.at += 7
        return self.samples[self.at :][: round(seconds * rate)]


def lfs_pointer(name: str) -> bytes:
    oid = f"{name.encode().hex()[:64]:0<64}"
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 72862\n".encode()


def write_crema_tree(
    folder: Path,
    manifest_csv: Path | None = None,
    faults: bool = True,
    clip: Path | None = None,
    people: Container[str] | None = None,
) -> tuple[Path, ExpectedFaults]:
    """All 7,442 clips of CREMA-D as VideoFlash/*.flv and AudioWAV/*.wav, about 350 MB.

    `clip` lends the face. With `people` theirs alone; CREMA_ACTORS have all faults.

    With the official list of files (path, oid, size) every name is taken from there, else from
    `corpora.official_clips`.
    """
    if manifest_csv:
        with manifest_csv.open(newline="") as handle:
            names = sorted(
                Path(row["path"]).stem
                for row in csv.DictReader(handle)
                if row["path"].endswith(".wav")
            )
    else:
        names = sorted(set().union(*corpora.official_clips("crema-d").values()))
    names = [name for name in names if people is None or name[:4] in people]
    noise, frames, expected = NoiseSource(), face_frames(clip), defaultdict(set)
    normal, voice = encode_film("flv", frames), encode_wav(noise(), before=TITLE_CHUNK)
    for part in ("VideoFlash", "AudioWAV"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / "VideoFlash" / f"{name}.flv").write_bytes(replace_title(normal, name))
        (folder / "AudioWAV" / f"{name}.wav").write_bytes(replace_title(voice, name))
    if not faults:
        return folder, {}

    def flv(name: str, content: bytes | None, *kinds: str) -> None:
        path = f"VideoFlash/{name}.flv"
        (folder / path).unlink() if content is None else write_files(folder, {path: content})
        for kind in kinds:
            expected[kind].add(path)

    def sound(name: str, content: bytes | None, *kinds: str) -> None:
        path = f"AudioWAV/{name}.wav"
        (folder / path).unlink() if content is None else write_files(folder, {path: content})
        for kind in kinds:
            expected[kind].add(path)

    # What is known of the published corpus.
    flat = np.full_like(frames, 60)
    flv("1076_MTI_SAD_XX", replace_title(encode_film("flv", flat, loud=0.0), "1076"), "no-face")
    sound("1076_MTI_SAD_XX", encode_wav(np.zeros(20_000, np.int16)), "silent")
    flv("1076_MTI_NEU_XX", replace_title(encode_film("flv", frames[:4]), "short"), "short-video")
    content = replace_title(normal, "no duration")
    at = content.index(b"duration\0") + 9
    flv("1064_TIE_SAD_XX", content[:at] + bytes(8) + content[at + 8 :], "no-duration")
    flv(
        "1064_IEO_DIS_MD",
        replace_title(encode_film("flv", np.repeat(frames, 10, 0), fps=2), "long"),
        "too-long",
    )
    mute = encode_film("flv", frames, sound=False)
    for name in names[100:7000:250][:28]:
        flv(name, replace_title(mute, name), "video-without-sound")
    for a, b in (
        ("1006_TIE_HAP", "1006_TIE_NEU"),
        ("1013_WSI_DIS", "1013_WSI_SAD"),
        ("1017_IWW_ANG", "1017_IWW_FEA"),
    ):
        sound(f"{b}_XX", (folder / f"AudioWAV/{a}_XX.wav").read_bytes())
        expected["duplicate"].add(f"AudioWAV/{a}_XX.wav = AudioWAV/{b}_XX.wav")
    sound("1040_ITH_SAD_XX", None)
    sound("1040_ITH_SAD_X", encode_wav(noise()), "odd-name")
    # What happens to any corpus on the way.
    flv("1003_IOM_ANG_XX", lfs_pointer("a"), "pointer")
    sound("1003_IOM_DIS_XX", lfs_pointer("b"), "pointer")
    sound("1004_IOM_ANG_XX", None)
    expected["no-wav"].add("VideoFlash/1004_IOM_ANG_XX.flv")
    flv("1004_IOM_DIS_XX", None)
    expected["no-video"].add("AudioWAV/1004_IOM_DIS_XX.wav")
    sound("1004_IOM_FEA_XX", None)
    flv("1004_IOM_FEA_XX", replace_title(mute, "mute"), "no-sound")
    sound("1005_IOM_ANG_XX", b"", "empty")
    sound("1005_IOM_DIS_XX", b"<html>404</html>", "unreadable")
    flv("1005_IOM_FEA_XX", normal[:300], "unreadable")
    flv(
        "1007_IOM_ANG_XX",
        replace_title(normal, "cut")[: len(normal) // 2],
        "cut-short",
        "short-video",
    )
    sound("1007_IOM_DIS_XX", encode_wav(noise(1.6))[: round(1.2 * 2 * SAMPLE_RATE)], "cut-short")
    sound("1007_IOM_FEA_XX", encode_wav(np.stack([noise(), noise()], 1)), "stereo")
    sound("1007_IOM_HAP_XX", encode_wav(noise(1.1, 44_100), 44_100), "odd-rate")
    sound("1007_IOM_NEU_XX", encode_wav(noise() // 150), "quiet")
    sound("1007_IOM_SAD_XX", encode_wav(noise(0.6)), "too-short")
    sound("1010 angry", encode_wav(noise()), "wrong-name")
    flv("1010_IOM_ANGRY_XX", replace_title(normal, "wrong"), "wrong-name")
    write_files(
        folder,
        {
            f"copy/AudioWAV/{n}.wav": (folder / f"AudioWAV/{n}.wav").read_bytes()
            for n in names[1000:1200]
        },
    )
    expected["nested-copy"] = {"copy = ."}
    write_files(folder, {"copy/AudioWAV/1091_WSI_SAD_XX.wav": encode_wav(noise(1.3))})
    expected["name-twice"] = {"copy/AudioWAV/1091_WSI_SAD_XX.wav"}
    (folder / "AudioWAV" / "again").symlink_to(folder, target_is_directory=True)
    expected["link-loop"] = {"AudioWAV/again"}
    return folder, dict(expected)


def write_ravdess_tree(
    folder: Path,
    faults: bool = True,
    clip: Path | None = None,
    people: Container[str] | None = None,
) -> tuple[Path, ExpectedFaults]:
    """The 1,440 performances of RAVDESS speech as its zips unpack.

    Two films and a sound of each, about 100 MB; `clip` lends the face. With `people` theirs alone;
    RAVDESS_ACTORS have all faults.
    """
    noise, frames, expected = NoiseSource(1), face_frames(clip), defaultdict(set)
    both, mute = encode_film("mp4", frames), encode_film("mp4", frames, sound=False)
    voice = encode_wav(noise(), before=TITLE_CHUNK)

    def place(modality: str, code: str) -> str:
        actor = f"Actor_{code[-2:]}"
        if modality == "03":
            return f"Audio_Speech_Actors_01-24/{actor}/03-{code}.wav"
        # 05 is nested twice
        again = f"{actor}/" if actor == "Actor_05" else ""
        return f"Video_Speech_{actor}/{actor}/{again}{modality}-{code}.mp4"

    codes = sorted(
        set().union(*corpora.official_clips("ravdess").values()), key=lambda code: code[::-1]
    )
    codes = [code for code in codes if people is None or code[-2:] in people]
    for code in codes:
        write_files(
            folder,
            {
                place("01", code): replace_title(both, code),
                place("02", code): replace_title(mute, code),
                place("03", code): replace_title(voice, code),
            },
        )
    if not faults:
        return folder, {}

    def put(modality: str, code: str, content: bytes | None, *kinds: str) -> None:
        path = place(modality, code)
        (folder / path).unlink() if content is None else write_files(folder, {path: content})
        for kind in kinds:
            expected[kind].add(path)

    for code in ("01-08-01-02-02-01", "01-02-01-02-02-05"):
        put("03", code, encode_wav(np.stack([noise(), noise()], 1)), "stereo")
    put(
        "03",
        "01-01-01-01-01-03",
        encode_wav(noise(), before=struct.pack("<4sI", b"FLLR", 4_000) + bytes(4_000)),
    )  # no fault
    a, b = place("03", "01-03-01-02-01-07"), place("03", "01-03-01-02-02-07")
    write_files(folder, {b: (folder / a).read_bytes()})
    expected["duplicate"] = {f"{a} = {b}"}
    put("01", "01-05-01-01-01-09", None)
    expected["missing-clips"].add("01-01-05-01-01-01-09")
    put("03", "01-05-01-01-02-09", None)
    expected["no-wav"].add(place("01", "01-05-01-01-02-09"))
    put("01", "01-05-01-02-01-09", None)
    put("02", "01-05-01-02-01-09", None)
    expected["no-video"].add(place("03", "01-05-01-02-01-09"))
    put("01", "01-05-01-02-02-09", None)
    expected["missing-clips"].add("01-01-05-01-02-02-09")
    put("03", "01-05-01-02-02-09", None)
    expected["no-sound"].add(place("02", "01-05-01-02-02-09"))
    films = 2 * len(codes)
    expected["count"] = {f"{films - 4:,} of {films:,} videos"}
    put("01", "01-06-01-01-01-10", replace_title(both, "cut")[: len(both) // 2], "unreadable")
    put(
        "01",
        "01-06-01-01-02-10",
        replace_title(encode_film("mp4", np.full_like(frames, 9)), "black"),
        "no-face",
    )
    put("03", "01-06-01-02-01-10", encode_wav(noise(1.1, 44_100), 44_100), "odd-rate")
    put("03", "01-06-01-02-02-10", encode_wav(np.zeros(20_000, np.int16)), "silent")
    write_files(
        folder,
        {
            "Audio_Song/Actor_01/03-02-01-01-01-01-01.wav": encode_wav(noise()),
            "extra/3-1-1.wav": encode_wav(noise()),
        },
    )
    expected["song"], expected["wrong-name"] = (
        {"Audio_Song/Actor_01/03-02-01-01-01-01-01.wav"},
        {"extra/3-1-1.wav"},
    )
    sounds = sorted((folder / "Audio_Speech_Actors_01-24").rglob("*.wav"))
    write_files(folder, {f"copy/{p.relative_to(folder)}": p.read_bytes() for p in sounds})
    expected["nested-copy"] = {"copy = ."}
    return folder, dict(expected)


def write_demo_films(folder: Path, corpus: str, people: int = 10) -> Path:
    """One small film of each invented actor and emotion, under the names of one of the paper's
    corpora: `crema-d` or `ravdess`.
    """
    emotions = {"NEU": "01", "HAP": "03", "SAD": "04", "ANG": "05", "FEA": "06", "DIS": "07"}
    for take in actors.list_takes(1, people):
        code = take.clip_id.split("_")[2]
        frames, wave = recordings.render_clip(take, fps=5, size=112)
        if corpus == "crema-d":
            film = folder / "VideoFlash" / f"{1000 + take.actor}_DFA_{code}_XX.flv"
            sound = folder / "AudioWAV" / f"{film.stem}.wav"
        else:
            film = folder / f"Actor_{take.actor:02d}"
            film /= f"01-01-{emotions[code]}-01-01-01-{take.actor:02d}.mp4"
            sound = film.parent / f"03{film.stem[2:]}.wav"
        for path in (film, sound):
            path.parent.mkdir(parents=True, exist_ok=True)
        clips.write_clip(film.with_suffix(".mp4"), frames, 5, wave)
        film.with_suffix(".mp4").rename(film)
        sound.write_bytes(encode_wav((32_767 * wave).clip(-32_767, 32_767).astype(np.int16)))
    return folder
