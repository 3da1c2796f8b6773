"""§4.1: a media file -> frames and waveform, within limits.

`sandbox` does the same in a child process, for untrusted files. Frames are (F, H, W, 3) uint8 RGB,
upright; a waveform is (T,) float32 mono in [-1, 1]; both run on one clock that starts at 0 s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from core import files
from core.media import containers, pictures
from core.media.containers import DEFAULT_LIMITS, Content, Limits, MediaError, PathName

MAX_TIMESTAMP_JUMP = 10.0  # s between two frames, or between the starts of sound and picture
MIN_FRAMES = 32  # kept of a long clip, however large they are
MIN_FILLED_GAP = 0.1  # s of missing sound that are replaced by silence; shorter gaps are closed
MAX_SILENT_PEAK = 1e-4  # peak, relative to full scale, below which a clip counts as silent
PICTURE_HINT = "Choose a video, or a picture of a face"
DEFAULT_FRAME_RATE = 25.0  # frames/s where the file states none, or one beyond 1..240 (webm: 1000)


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
    """A frame that a clip keeps, as soon as it is decoded.

    If `number` did not grow, the clip outlasted its header: every second earlier frame is dropped.
    """

    time: float  # s after the first frame
    frame: np.ndarray  # (H, W, 3) uint8 RGB, upright
    number: int  # frames kept so far, this one included
    header_seconds: float  # length by the header, at most limits.seconds; 0 where it states none


def append_and_thin(frames: list, new: Any, number: int) -> list:
    """Append `new` to the kept frames, then drop every second one until `number` are left."""
    frames = [*frames, new]
    while len(frames) > number:
        frames = frames[::2]
    return frames


def read_clip(
    source: Content,
    limits: Limits = DEFAULT_LIMITS,
    need_sound: bool = False,
    name: str | None = None,
    on_frame: Callable[[DecodedFrame], None] | None = None,
) -> Clip:
    """A video, or a still picture (one frame, no sound), as a Clip.

    `source` is a path, or a file's bytes. `name` is shown to people; the file's own if None.
    `on_frame` is called with each kept frame of a video once it is decoded; not for stills, nor
    with `limits.near`. A damaged clip is read as far as possible, and a note says so. Raises
    MediaError for a file that is no media, has no picture, is too large, has no decodable frame or,
    with `need_sound`, has no sound.
    """
    name = name or containers.file_name(source)
    if not limits.frames:
        no_frames = np.zeros((0, 1, 1, 3), np.uint8)
        return Clip(name, np.zeros(0), no_frames, read_waveform(source, Clip.rate, limits, name))
    kind, content = containers.read_media(source, name, limits)
    if kind in containers.AUDIO_DEMUXERS:
        raise MediaError(f"{name} is sound only and has no picture. {PICTURE_HINT}")
    if is_picture(kind, content):
        image, note = pictures.read_picture(content, kind, name, limits)
        frames, notes = np.asarray(image)[None], (note,) if note else ()
        clip = Clip(name, np.zeros(1), frames, None, notes=notes, is_still=True)
    else:
        clip = _read_video(content, kind, name, limits, on_frame)
    if need_sound and clip.waveform is None:
        raise MediaError(f"{name} has no sound, which is needed here. Choose a clip with a voice")
    return clip


def is_picture(kind: str, content: bytes) -> bool:
    """Whether a file of that kind holds one still picture."""
    return kind in containers.PICTURE_FORMATS or kind == "gif" and pictures.is_still_gif(content)


def _decode_frames(box: Any, streams: list[Any], wanted: Callable[[Any], bool]) -> Iterator[Any]:
    """Frames of the streams, while one of them is `wanted`.

    Yields the string "packet" for a packet, or "rest" for a remainder, that cannot be decoded.
    """
    packets = box.demux(streams)
    while any(wanted(stream) for stream in streams):
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:
            _raise_memory_error(error)
            yield "rest"
            return
        if wanted(packet.stream):
            try:
                yield from packet.decode()
            except av.FFmpegError as error:
                _raise_memory_error(error)
                yield "packet"


def _raise_memory_error(error: av.FFmpegError) -> None:
    if isinstance(error, MemoryError):  # the machine's fault, not the file's
        raise error


class _FrameSampler:
    """Keeps at most `limits.fps` frames a second and `most` in all, upright and scaled."""

    def __init__(
        self,
        stream: Any,
        limits: Limits,
        header_seconds: float,
        on_frame: Callable[[DecodedFrame], None] | None,
    ) -> None:
        rates = (float(r) for r in (stream.average_rate, stream.guessed_rate) if r)
        self.period = 1 / next((r for r in rates if 1 <= r <= 240), DEFAULT_FRAME_RATE)
        shape = float(stream.sample_aspect_ratio or 1)  # width of a pixel over its height
        self.pixel_shape = shape if 0.25 < shape < 4 else 1.0
        self.limits, self.header_seconds, self.step = limits, header_seconds, 1 / limits.fps
        self.on_frame = on_frame if limits.near == np.inf else None
        self.frames: list[Any] = []  # (H, W, 3); with limits.near as decoded, None 1 s away from it
        self.times: list[float] = []
        self.start, self.last = 0.0, -np.inf  # s, timestamps of the first and the latest frame
        self.bad_timestamps = 0  # missing or impossible ones
        self.size, self.quarter_turns, self.slot, self.full = (0, 0), 0, -1, False
        self.decoded, self.is_heavy = 0, False  # pixels; more than limits.decoded_pixels

    def add_frame(self, frame: av.VideoFrame) -> None:
        t = frame.time
        if not np.isfinite(self.last):
            self.start = self.last = 0.0 if t is None else t
            self.bad_timestamps += t is None
            w, h = frame.width * self.pixel_shape, float(frame.height)
            scale = min(1.0, self.limits.side / max(w, h))
            self.size = max(round(w * scale), 1), max(round(h * scale), 1)
            self.quarter_turns = round(frame.rotation / 90) % 4
            fit = max(MIN_FRAMES, self.limits.kept_bytes // (3 * self.size[0] * self.size[1]))
            self.most = min(self.limits.frames, fit)
            # A video whose header states its true length never drops a frame that was kept.
            while self.header_seconds > self.step * self.most:
                self.step *= 2
        elif t is None or not self.last < t < self.last + MAX_TIMESTAMP_JUMP:
            self.last, self.bad_timestamps = self.last + self.period, self.bad_timestamps + 1
        else:
            self.last = t
        elapsed = self.last - self.start
        self.decoded += frame.width * frame.height
        self.is_heavy = self.decoded > self.limits.decoded_pixels and self.limits.near == np.inf
        self.full = self.is_heavy or elapsed > min(self.limits.seconds, self.limits.near + 1)
        slot = int((elapsed + min(self.period, self.step / 2) / 2) / self.step + 1e-6)
        if self.full or slot <= self.slot:
            return
        self.slot = slot
        kept: Any = frame if elapsed > self.limits.near - 1 else None
        if self.limits.near == np.inf:
            kept = self.to_upright_rgb(frame)
        self.frames.append(kept)
        self.times.append(self.last)
        if len(self.frames) > self.most:
            self.frames, self.times = self.frames[::2], self.times[::2]
            self.step, self.slot = 2 * self.step, self.slot // 2
        if self.on_frame and isinstance(kept, np.ndarray):
            self.on_frame(DecodedFrame(elapsed, kept, len(self.frames), self.header_seconds))

    def to_upright_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        rgb = frame.reformat(*self.size, format="rgb24", interpolation="AREA").to_ndarray()
        return np.rot90(rgb, self.quarter_turns)


class _AudioResampler:
    """Resamples frames of sound to mono, with silence where some is missing."""

    def __init__(self, rate: int, seconds: float) -> None:
        self.rate, self.max_samples = rate, round(seconds * rate)
        self.parts: list[np.ndarray] = []
        self.length, self.full = 0, False
        self.start: float | None = None  # s, timestamp of the first frame
        self.end = 0.0  # s, where the sound so far ends
        self.form: tuple[Any, ...] = ()
        self.resampler: Any = None

    def add_frame(self, frame: av.AudioFrame | None) -> None:
        """None ends the sound."""
        form = (frame.sample_rate, frame.format.name, frame.layout.name) if frame else ()
        if frame and not 1_000 <= frame.sample_rate <= 768_000:  # a damaged header
            return
        with contextlib.suppress(av.FFmpegError):  # the resampler's: that part of the sound is lost
            if form != self.form:  # also in the middle of a file
                if self.form:
                    self._append(self.resampler.resample(None))
                # The layout stays: FFmpeg's own mixing makes what both channels hold louder.
                self.form, self.resampler = form, av.AudioResampler("fltp", None, self.rate)
            if frame:
                t = frame.time
                if self.start is None:
                    self.start = self.end = t or 0.0
                if t is not None and MIN_FILLED_GAP < t - self.end < MAX_TIMESTAMP_JUMP:
                    self._append([np.zeros((1, round((t - self.end) * self.rate)), np.float32)])
                    self.end = t
                self.end += frame.samples / frame.sample_rate
                self._append(self.resampler.resample(frame))

    def _append(self, parts: list[Any]) -> None:
        for part in parts:
            mono = (part if isinstance(part, np.ndarray) else part.to_ndarray()).mean(0)
            self.parts.append(mono)
            self.length += len(mono)
        self.full = self.length >= self.max_samples

    def waveform(self, name: str) -> np.ndarray:
        wave = np.concatenate(self.parts, dtype=np.float32)[: self.max_samples]
        containers.check_peak(wave, name)
        return np.nan_to_num(wave, posinf=1, neginf=-1).clip(-1, 1)


def _read_video(
    content: bytes,
    kind: str,
    name: str,
    limits: Limits,
    on_frame: Callable[[DecodedFrame], None] | None = None,
) -> Clip:
    with containers.open_container(content, kind, name) as box:
        # Find the streams, and the length that the header states.
        video = containers.video_stream(box)
        audio = next((s for s in box.streams.audio if s.codec_context), None)
        if video is None:
            raise MediaError(f"{name} has no picture that can be decoded. {PICTURE_HINT}")
        if video.width and video.height:
            pictures.check_size(video.width, video.height, name, limits)
        video.codec_context.thread_type, video.codec_context.thread_count = "AUTO", 2
        header_seconds = box.duration / 1e6 if box.duration else 0.0
        film = _FrameSampler(video, limits, min(header_seconds, limits.seconds), on_frame)
        sound = _AudioResampler(Clip.rate, limits.seconds)
        broken, unreadable = 0, False  # frames and packets that cannot be decoded; a remainder
        # Pass each decoded frame to its sampler.
        streams = [stream for stream in (video, audio) if stream]
        samplers: dict[Any, Any] = {video: film, audio: sound}
        for frame in _decode_frames(box, streams, lambda stream: not samplers[stream].full):
            if isinstance(frame, av.AudioFrame):
                sound.add_frame(frame)
            elif isinstance(frame, av.VideoFrame) and not frame.is_corrupt:
                pictures.check_size(frame.width, frame.height, name, limits)
                film.add_frame(frame)
            else:
                broken, unreadable = broken + 1, unreadable or frame == "rest"
        sound.add_frame(None)
    if not film.frames:
        fault = f"{name} is damaged or cut short: not one frame of it could be decoded"
        raise MediaError(f"{fault}. {containers.RETRY_HINT}. {containers.EXPORT_HINT}")
    # Bring both onto one clock; with limits.near, keep the frame nearest that time.
    notes = _picture_notes(film, sound, header_seconds, broken, unreadable)
    waveform, delay, sound_notes = _place_sound(film, sound, name)
    times, frames = np.array(film.times) - film.start + delay, film.frames
    if limits.near < np.inf:
        k = int(np.abs(times - limits.near).argmin())
        if frames[k] is None:  # the delay moved limits.near out of the second that was kept
            every_frame = dataclasses.replace(limits, near=np.inf)
            return _read_video(content, kind, name, every_frame, on_frame)
        times, frames = times[k : k + 1], [film.to_upright_rgb(frames[k])]
    return Clip(name, times, np.stack(frames), waveform, notes=(*notes, *sound_notes))


def _picture_notes(
    film: _FrameSampler,
    sound: _AudioResampler,
    header_seconds: float,
    broken: int,
    unreadable: bool,
) -> list[str]:
    """Remarks on what was turned, left out or damaged, in plain language."""
    limits, notes = film.limits, []
    if film.quarter_turns:
        degrees = 360 - film.quarter_turns * 90
        notes.append(f"turned by {degrees} degrees clockwise, as the file asks")
    if film.is_heavy:
        notes.append(f"large frames: only the first {film.last - film.start:.1f} s were read")
    elif film.full or sound.full and header_seconds > limits.seconds:
        notes.append(f"longer than {limits.seconds:g} s: only the beginning was read")
    seconds = _seconds_read(film, sound)
    if not film.full and (unreadable or seconds < 0.95 * header_seconds - 0.3):
        of = f" of {header_seconds:.1f} s" if seconds < header_seconds else ""
        notes.append(f"cut short: only the first {seconds:.1f} s{of} could be read")
    elif broken:
        notes.append("damaged: some frames were left out")
    if film.bad_timestamps:
        notes.append("some timestamps are missing or wrong: times are counted by the frame rate")
    if film.step > 1 / limits.fps:
        notes.append(f"long: {1 / film.step:.3g} frames a second are kept")
    return notes


def _seconds_read(film: _FrameSampler, sound: _AudioResampler) -> float:
    """Seconds from the start of the earlier stream to the end of the later one."""
    spans = [(film.start, film.last + film.period)]
    if sound.length:
        start = sound.start or 0.0
        spans.append((start, max(sound.end, start + sound.length / Clip.rate)))
    (a, _), (b, _) = spans[0], spans[-1]
    if abs(a - b) > MAX_TIMESTAMP_JUMP:  # unrelated clocks
        return max(end - start for start, end in spans)
    return max(end for _, end in spans) - min(a, b)


def _place_sound(
    film: _FrameSampler, sound: _AudioResampler, name: str
) -> tuple[np.ndarray | None, float, list[str]]:
    """The waveform from the start of the earlier stream, the picture's delay in s, and remarks."""
    if not sound.length:
        return None, 0.0, ["has no sound"]
    notes, delay = [], film.start - (sound.start or 0.0)
    if abs(delay) > MAX_TIMESTAMP_JUMP:
        notes.append("sound and picture have unrelated clocks: both are taken to start together")
        delay = 0.0
    silence = np.zeros(round(max(-delay, 0) * Clip.rate), np.float32)
    waveform = np.concatenate([silence, sound.waveform(name)])
    if np.abs(waveform).max() < MAX_SILENT_PEAK:
        notes.append("the sound is silent")
    return waveform, max(delay, 0.0), notes


def read_waveform(
    source: Content, rate: int = 16_000, limits: Limits = DEFAULT_LIMITS, name: str | None = None
) -> np.ndarray:
    """The sound of a sound file or video: (T,) float32 in [-1, 1] at `rate` Hz, the channels' mean.

    At most limits.seconds are read. Raises MediaError for a file that is no media or has no sound.
    """
    name = name or containers.file_name(source)
    kind, content = containers.read_media(source, name, limits)
    if kind in containers.PICTURE_FORMATS:
        raise MediaError(f"{name} is a picture and has no sound. Choose a sound or a video")
    sound = _AudioResampler(rate, limits.seconds)
    if kind in containers.SOUNDFILE_KINDS:
        import soundfile

        with (
            contextlib.suppress(soundfile.LibsndfileError),
            soundfile.SoundFile(io.BytesIO(content)) as file,
        ):
            while not sound.full and len(data := file.read(2**16, dtype="float32", always_2d=True)):
                mono = data.mean(1, dtype=np.float32)[None]
                frame = av.AudioFrame.from_ndarray(mono, format="fltp", layout="mono")
                frame.sample_rate = file.samplerate
                sound.add_frame(frame)
    if not sound.parts:
        with containers.open_container(content, kind, name) as box:
            stream = next((s for s in box.streams.audio if s.codec_context), None)
            for frame in _decode_frames(box, [stream], lambda _: not sound.full) if stream else ():
                if isinstance(frame, av.AudioFrame):
                    sound.add_frame(frame)
    sound.add_frame(None)
    if not sound.length:
        raise MediaError(f"{name} has no sound that can be decoded. Choose a wav or mp3 of a voice")
    return sound.waveform(name)


def write_clip(
    path: PathName,
    frames: np.ndarray,
    fps: float,
    waveform: np.ndarray | None = None,
    rate: int = Clip.rate,
) -> None:
    """Write frames (F, H, W, 3) uint8 RGB and a waveform (T,) in [-1, 1] as a small mp4.

    H.264 (or MPEG-4) and AAC. Video needs even sides: the edge of an odd side is repeated once.
    """
    odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    frames = np.pad(frames, odd, mode="edge")
    codec, options = "libx264", {"crf": "20", "preset": "veryfast"}
    if codec not in av.codecs_available:
        codec, options = "mpeg4", {"q": "3"}

    def write(file: Any) -> None:
        with av.open(file, "w", format="mp4") as box:
            exact = Fraction(fps).limit_denominator(1001)
            video: Any = box.add_stream(codec, rate=exact, options=options)
            video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
            audio: Any = waveform is not None and box.add_stream("aac", rate=rate, layout="mono")
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                box.mux(video.encode(picture))
            box.mux(video.encode(None))
            if waveform is not None:
                wave = np.asarray(waveform, np.float32)[None].clip(-1, 1)
                sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                sound.sample_rate, sound.pts, sound.time_base = rate, 0, Fraction(1, rate)
                box.mux(audio.encode(sound))
                box.mux(audio.encode(None))

    files.write_atomic(Path(path), write)
