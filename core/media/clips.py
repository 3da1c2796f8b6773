"""§4.1: a media file -> frames and waveform, with limits. Files of strangers: `apart`, the same in a child process.

What a file is decides its content, never its name: the demuxer is chosen here, so that no playlist or script can be smuggled in.
Frames are (F, H, W, 3) uint8 RGB, upright; a waveform is (T,) float32 mono in [-1, 1]; both run on one clock that starts at 0 s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageOps

from core.media import containers

MIN_PICTURE_SIDE = 16  # pixels of a picture's shorter side
MAX_TIMESTAMP_JUMP = 10.0  # seconds between two frames, or between the starts of sound and picture, that no clock makes
MIN_FILLED_GAP = 0.1  # seconds of missing sound from which on silence is put in its place
MAX_SILENT_PEAK = 1e-4  # of full scale; below it there is nothing to hear


@dataclass(frozen=True)
class Clip:
    """A decoded file."""

    name: str  # for people
    times: np.ndarray  # (F,) float64 seconds, increasing, on the waveform's clock
    frames: np.ndarray  # (F, H, W, 3) uint8 RGB
    waveform: np.ndarray | None  # (T,) float32 in [-1, 1], None if there is no sound
    rate: int = 16_000  # Hz
    notes: tuple[str, ...] = ()  # remarks in plain language
    is_still: bool = False


@dataclass(frozen=True)
class DecodedFrame:
    """A frame that a clip keeps, as soon as it is decoded."""

    time: float  # s after the first frame
    frame: np.ndarray  # (H, W, 3) uint8 RGB, upright
    number: int  # frames kept with it; where that is no more than before it, a clip longer than it said keeps every other of them all
    header_seconds: (
        float  # s that the file says it lasts, as far as it is read; 0 where it does not say
    )


def append_and_thin(frames: list, one: Any, number: int) -> list:
    """The frames kept (or what belongs to each) with the next one, of which `number` are left."""
    frames = [*frames, one]
    while len(frames) > number:
        frames = frames[::2]
    return frames


def read_clip(
    path: containers.PathName,
    limits: containers.Limits = containers.DEFAULT_LIMITS,
    need_sound: bool = False,
    name: str | None = None,
    tell: Callable[[DecodedFrame], None] | None = None,
) -> Clip:
    """A video (or a still picture: one frame, no sound) as a Clip. `name` is what people know it by, the file's own if None.

    `tell` gets each frame of a film when it is decoded; of `limits.near`, and of a still, none.

    Raises MediaError for what is not media, has no picture, is too large, is damaged beyond a first frame, or, with `need_sound`,
    has no sound. A clip cut short is read as far as it goes, and a note says so.
    """
    path, name = Path(path), name or Path(path).name
    if not limits.frames:
        return Clip(
            name,
            np.zeros(0),
            np.zeros((0, 1, 1, 3), np.uint8),
            read_waveform(path, Clip.rate, limits, name),
        )
    kind = containers._check_file(path, name, limits)
    if kind in containers.AUDIO_DEMUXERS:
        raise containers.MediaError(
            f"{name} is sound only and has no picture. Choose a video, or a picture of a face"
        )
    clip = (
        _read_picture(path, kind, name, limits)
        if kind in containers.PICTURE_FORMATS
        else _read_video(path, kind, name, limits, tell)
    )
    if need_sound and clip.waveform is None:
        raise containers.MediaError(
            f"{name} has no sound, which is needed here. Choose a clip with a voice"
        )
    return clip


def _read_picture(path: Path, kind: str, name: str, limits: containers.Limits) -> Clip:
    try:
        with Image.open(path, formats=[containers.PICTURE_FORMATS[kind]]) as image:
            _check_frame_size(*image.size, name, limits)
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith("I"):  # 16 bits, which PIL would cut off at 255
                turned = Image.fromarray((np.asarray(turned) / 257).clip(0, 255).astype(np.uint8))
            rgb = turned.convert("RGB")
            rgb.thumbnail((limits.side, limits.side), Image.Resampling.LANCZOS)
            notes = (
                ("turned upright, as its EXIF data ask",)
                if image.getexif().get(0x0112, 1) != 1
                else ()
            )
    except Image.DecompressionBombError as error:
        raise containers.MediaError(f"{name} has too many pixels. Scale it down") from error
    except Exception as error:  # six decoders, and each raises what it likes
        if isinstance(error, containers.MediaError | MemoryError):
            raise
        raise containers.MediaError(
            f"{name} is a damaged picture. Save it again as jpg or png"
        ) from error
    return Clip(name, np.zeros(1), np.asarray(rgb)[None], None, notes=notes, is_still=True)


def _check_frame_size(w: int, h: int, name: str, limits: containers.Limits) -> None:
    if w * h > limits.pixels:
        raise containers.MediaError(
            f"{name} has {w} x {h} pixels; at most {limits.pixels / 1e6:.0f} million are taken. Scale it down"
        )
    if min(w, h) < MIN_PICTURE_SIDE:
        raise containers.MediaError(
            f"{name} has only {w} x {h} pixels, too few for a face. Choose a larger picture"
        )


def _decode_frames(box: Any, streams: list[Any], wanted: Callable[[Any], bool]) -> Iterator[Any]:
    """Frames of those streams, as long as one is wanted. A word stands for what cannot be decoded: "packet", or "rest" of the file."""
    packets = box.demux(streams)
    while any(wanted(stream) for stream in streams):
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError:
            yield "rest"
            return
        if wanted(packet.stream):
            try:
                yield from packet.decode()
            except av.FFmpegError:
                yield "packet"


class _FrameSampler:
    """Keeps at most `fps` frames a second and `frames` in all of those shown to it, upright and scaled down."""

    def __init__(
        self,
        limits: containers.Limits,
        rate: float,
        promised: float,
        tell: Callable[[DecodedFrame], None] | None,
    ) -> None:
        self.limits, self.period, self.step = limits, 1 / rate, 1 / limits.fps
        self.header_seconds, self.tell = promised, tell if limits.near == np.inf else None
        while (
            promised > self.step * limits.frames
        ):  # so that a film that tells its length truly loses no frame that was kept
            self.step *= 2
        self.frames: list[
            Any
        ] = []  # (H, W, 3); with limits.near frames as decoded, None further than a second away
        self.times: list[float] = []
        self.start, self.last, self.bad_timestamps = (
            0.0,
            -np.inf,
            0,
        )  # strange: timestamps that were missing or impossible
        self.size, self.turns, self.slot, self.full = (0, 0), 0, -1, False

    def see(self, frame: av.VideoFrame, shape: float) -> None:
        """`shape` is the width of one pixel over its height."""
        t = frame.time
        if not np.isfinite(self.last):
            self.start = self.last = 0.0 if t is None else t
            self.bad_timestamps += t is None
            scale = min(
                1.0, self.limits.side / max(w := frame.width * shape, h := float(frame.height))
            )
            self.size, self.turns = (
                (max(round(w * scale), 1), max(round(h * scale), 1)),
                round(frame.rotation / 90) % 4,
            )
        elif t is None or not self.last < t < self.last + MAX_TIMESTAMP_JUMP:
            self.last, self.bad_timestamps = self.last + self.period, self.bad_timestamps + 1
        else:
            self.last = t
        elapsed = self.last - self.start
        self.full = elapsed > min(self.limits.seconds, self.limits.near + 1)
        slot = int((elapsed + min(self.period, self.step / 2) / 2) / self.step + 1e-6)
        if self.full or slot <= self.slot:
            return
        self.slot = slot
        newest = (
            self.to_upright_rgb(frame)
            if self.limits.near == np.inf
            else frame
            if elapsed > self.limits.near - 1
            else None
        )
        self.frames.append(newest)
        self.times.append(self.last)
        if len(self.frames) > self.limits.frames:
            self.frames, self.times = self.frames[::2], self.times[::2]
            self.step, self.slot = 2 * self.step, self.slot // 2
        if self.tell and isinstance(newest, np.ndarray):
            self.tell(DecodedFrame(elapsed, newest, len(self.frames), self.header_seconds))

    def to_upright_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        return np.rot90(
            frame.reformat(*self.size, format="rgb24", interpolation="AREA").to_ndarray(),
            self.turns,
        )


class _AudioResampler:
    """Resamples frames of sound to mono, with silence where some is missing."""

    def __init__(self, rate: int, seconds: float) -> None:
        self.rate, self.most = rate, round(seconds * rate)
        self.parts: list[np.ndarray] = []
        self.length, self.heard, self.full = 0, 0.0, False
        self.start: float | None = None
        self.form: tuple[Any, ...] = ()
        self.resampler: Any = None

    def add_frame(self, frame: av.AudioFrame | None) -> None:
        """None ends the sound."""
        form = (frame.sample_rate, frame.format.name, frame.layout.name) if frame else ()
        if frame and not 1_000 <= frame.sample_rate <= 768_000:  # a damaged header
            return
        with contextlib.suppress(av.FFmpegError):  # of the resampler: that part is lost
            if form != self.form:  # also in the middle of a file
                if self.form:
                    self._append_parts(self.resampler.resample(None))
                # The layout stays: FFmpeg's own mixing to mono would make a voice on both channels louder than on one.
                self.form, self.resampler = form, av.AudioResampler("fltp", None, self.rate)
            if frame:
                t = frame.time
                if self.start is None:
                    self.start = self.heard = t or 0.0
                if t is not None and MIN_FILLED_GAP < t - self.heard < MAX_TIMESTAMP_JUMP:
                    self._append_parts(
                        [np.zeros((1, round((t - self.heard) * self.rate)), np.float32)]
                    )
                    self.heard = t
                self.heard += frame.samples / frame.sample_rate
                self._append_parts(self.resampler.resample(frame))

    def _append_parts(self, parts: list[Any]) -> None:
        for part in parts:
            mono = (part if isinstance(part, np.ndarray) else part.to_ndarray()).mean(0)
            self.parts.append(mono)
            self.length += len(mono)
        self.full = self.length >= self.most

    def waveform(self) -> np.ndarray:
        return np.nan_to_num(
            np.concatenate(self.parts, dtype=np.float32)[: self.most], posinf=1, neginf=-1
        ).clip(-1, 1)


def _read_video(
    path: Path,
    kind: str,
    name: str,
    limits: containers.Limits,
    tell: Callable[[DecodedFrame], None] | None = None,
) -> Clip:
    with containers._open_container(path, kind, name) as box:
        video = next(
            (
                s
                for s in box.streams.video
                if not s.disposition & av.stream.Disposition.attached_pic
            ),
            None,
        )
        audio = next((s for s in box.streams.audio if s.codec_context), None)
        if video is None or video.codec_context is None:
            raise containers.MediaError(
                f"{name} has no picture that can be decoded. Choose a video, or a picture of a face"
            )
        if video.width and video.height:
            _check_frame_size(video.width, video.height, name, limits)
        video.codec_context.thread_type, video.codec_context.thread_count = "AUTO", 2
        rate = next(
            (float(r) for r in (video.average_rate, video.guessed_rate) if r and 1 <= r <= 240),
            25.0,
        )  # webm: none, or 1000
        shape = float(video.sample_aspect_ratio or 1)
        promised = box.duration / 1e6 if box.duration else 0.0
        pictures, sound = (
            _FrameSampler(limits, rate, min(promised, limits.seconds), tell),
            _AudioResampler(Clip.rate, limits.seconds),
        )
        broken = unreadable = 0
        for frame in _decode_frames(
            box,
            [t for t in (video, audio) if t],
            lambda t: not (pictures.full if t is video else sound.full),
        ):
            if isinstance(frame, av.AudioFrame):
                sound.add_frame(frame)
            elif isinstance(frame, av.VideoFrame) and not frame.is_corrupt:
                _check_frame_size(frame.width, frame.height, name, limits)
                pictures.see(frame, shape if 0.25 < shape < 4 else 1.0)
            else:
                broken, unreadable = broken + 1, unreadable + (frame == "rest")
        sound.add_frame(None)
    if not pictures.frames:
        raise containers.MediaError(
            f"{name} is damaged or cut short: not one frame of it could be decoded. {containers.RETRY_HINT}. {containers.EXPORT_HINT}"
        )
    notes = []
    if pictures.turns:
        notes.append(f"turned by {360 - pictures.turns * 90} degrees clockwise, as the file asks")
    if pictures.full or sound.full and promised > limits.seconds:
        notes.append(f"longer than {limits.seconds:g} s: only the beginning was read")
    read = max(pictures.last - pictures.start + pictures.period, sound.length / Clip.rate)
    if not pictures.full and (unreadable or read < 0.95 * promised - 0.3):
        notes.append(
            f"cut short: only the first {read:.1f} s{f' of {promised:.1f} s' if read < promised else ''} could be read"
        )
    elif broken:
        notes.append("damaged: some frames were left out")
    if pictures.bad_timestamps:
        notes.append("some timestamps are missing or wrong: times are counted by the frame rate")
    if pictures.step > 1 / limits.fps:
        notes.append(f"long: {1 / pictures.step:.3g} frames a second are kept")
    waveform, lead = None, 0.0
    if sound.length:
        lead = pictures.start - (sound.start or 0.0)  # how much later the picture begins
        if abs(lead) > MAX_TIMESTAMP_JUMP:
            notes.append(
                "sound and picture have unrelated clocks: both are taken to start together"
            )
            lead = 0.0
        waveform = np.concatenate(
            [np.zeros(round(max(-lead, 0) * Clip.rate), np.float32), sound.waveform()]
        )
        if np.abs(waveform).max() < MAX_SILENT_PEAK:
            notes.append("the sound is silent")
    else:
        notes.append("has no sound")
    times, frames = np.array(pictures.times) - pictures.start + max(lead, 0.0), pictures.frames
    if limits.near < np.inf:
        k = int(np.abs(times - limits.near).argmin())
        if (
            frames[k] is None
        ):  # the picture begins so late that the second around it was sought in the wrong place
            return _read_video(path, kind, name, dataclasses.replace(limits, near=np.inf), tell)
        times, frames = times[k : k + 1], [pictures.to_upright_rgb(frames[k])]
    return Clip(name, times, np.stack(frames), waveform, notes=tuple(notes))


def read_waveform(
    path: containers.PathName,
    rate: int = 16_000,
    limits: containers.Limits = containers.DEFAULT_LIMITS,
    name: str | None = None,
) -> np.ndarray:
    """The sound of a file, of a video too: (T,) float32 mono (the mean of the channels) in [-1, 1] at `rate` Hz, at most limits.seconds.

    Raises MediaError for what is not media or has no sound.
    """
    path, name = Path(path), name or Path(path).name
    kind = containers._check_file(path, name, limits)
    if kind in containers.PICTURE_FORMATS:
        raise containers.MediaError(
            f"{name} is a picture and has no sound. Choose a sound or a video"
        )
    sound = _AudioResampler(rate, limits.seconds)
    if kind in ("wav", "flac", "mp3", "ogg"):
        import soundfile  # knows more broken headers of wav files than FFmpeg, and less of everything else

        with contextlib.suppress(soundfile.LibsndfileError), soundfile.SoundFile(path) as file:
            while not sound.full and len(data := file.read(2**16, dtype="float32", always_2d=True)):
                frame = av.AudioFrame.from_ndarray(
                    data.mean(1, dtype=np.float32)[None], format="fltp", layout="mono"
                )
                frame.sample_rate = file.samplerate
                sound.add_frame(frame)
    if not sound.parts:
        with containers._open_container(path, kind, name) as box:
            stream = next((s for s in box.streams.audio if s.codec_context), None)
            for frame in _decode_frames(box, [stream], lambda _: not sound.full) if stream else ():
                if isinstance(frame, av.AudioFrame):
                    sound.add_frame(frame)
    sound.add_frame(None)
    if not sound.length:
        raise containers.MediaError(
            f"{name} has no sound that can be decoded. Choose a file with a voice, for instance wav or mp3"
        )
    return sound.waveform()


def write_clip(
    path: containers.PathName,
    frames: np.ndarray,
    fps: float,
    waveform: np.ndarray | None = None,
    rate: int = Clip.rate,
) -> None:
    """Frames (F, H, W, 3) uint8 RGB and a waveform (T,) in [-1, 1] -> a small mp4 (H.264, or MPEG-4 where that is missing; AAC).

    An odd side gets one more line of its edge, as video wants even ones. The file appears whole or not at all.
    """
    path = Path(path)
    frames = np.pad(
        frames, [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)], mode="edge"
    )
    codec, options = (
        ("libx264", {"crf": "20", "preset": "veryfast"})
        if "libx264" in av.codecs_available
        else ("mpeg4", {"q": "3"})
    )
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with av.open(str(part), "w", format="mp4") as box:
            video: Any = box.add_stream(
                codec, rate=Fraction(fps).limit_denominator(1001), options=options
            )
            video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
            audio: Any = (
                box.add_stream("aac", rate=rate, layout="mono") if waveform is not None else None
            )
            for frame in frames:
                box.mux(
                    video.encode(
                        av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                    )
                )
            box.mux(video.encode(None))
            if audio is not None and waveform is not None:
                sound = av.AudioFrame.from_ndarray(
                    np.asarray(waveform, np.float32)[None].clip(-1, 1), format="fltp", layout="mono"
                )
                sound.sample_rate, sound.pts, sound.time_base = rate, 0, Fraction(1, rate)
                box.mux(audio.encode(sound))
                box.mux(audio.encode(None))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
