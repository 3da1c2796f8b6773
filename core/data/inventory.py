"""§4.1: which media a corpus holds, by their names and first bytes, and which clips they make; oddities are noted, none stops it.

`corpora.index_clips` lists what is usable and refuses what it cannot understand; here everything is listed, so that `doctor` can say what
keeps it from being usable. Findings go to a table that the caller gives: kind of fault -> name of the file -> detail, or "".
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path, PurePosixPath

from core.data import corpora, labels
from core.data.corpora import CREMA_NAME, DEMO_NAME, RAVDESS_NAME, CorpusError
from core.media import clips, probe

NAME_PATTERNS = {
    "crema-d": CREMA_NAME,
    "ravdess": RAVDESS_NAME,
    "demo-clips": DEMO_NAME,
}  # corpora whose file names say all
CREMA_SENTENCES = (
    "IOM",
    "IWL",
    "TAI",
    "TSI",
    "IWW",
    "DFA",
    "TIE",
    "ITS",
    "MTI",
    "ITH",
    "WSI",
)  # IEO is spoken at three levels
CREMA_EMOTION_CODES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
CREMA_UNPUBLISHED = (
    "1002_TIE_NEU",
    "1008_WSI",
    "1009_MTI",
    "1019_ITH",
    "1076_ITS_NEU",
)  # never published

ProgressCallback = Callable[[int, int, str], None]  # (done, total, phase)
Findings = dict[str, dict[str, str]]  # kind of fault -> name -> detail, "" if there is none


@dataclass(frozen=True)
class MediaFile:
    """One media file, or one member of a zip."""

    path: Path
    member: str  # inside the zip `path`, or ""
    name: str  # for people: inside the root, printable
    size: int  # bytes
    crc: int | None  # a zip's own sum of a member
    kind: str  # as `clips.sniff` says, "" where it could not be read

    @property
    def stem(self) -> str:
        return PurePosixPath(self.member or self.path.name).stem

    @property
    def role(self) -> str:
        """picture, video or audio, by what its name ends in; "" for other files."""
        suffix = PurePosixPath(self.member or self.path.name).suffix.lower()
        return next(
            (role for role, endings in corpora.MEDIA_EXTENSIONS.items() if suffix in endings), ""
        )

    @property
    def reference(self) -> str:
        return f"{self.path}!{self.member}" if self.member else str(self.path)

    @property
    def folder(self) -> tuple[str, ...]:
        """Folders inside the root; a zip counts as one."""
        return tuple(self.name.replace("!", "/").split("/")[:-1])

    @contextlib.contextmanager
    def content(self) -> Iterator[Path]:
        """A path to read it from; of a member a temporary one."""
        if not self.member:
            yield self.path
        else:
            with corpora.media_file(self.reference) as path:
                yield path


@dataclass
class ClipFiles:
    """The files that make one clip."""

    subject: str = ""
    videos: list[MediaFile] = field(default_factory=list)  # those with sound first
    sounds: list[MediaFile] = field(default_factory=list)
    crop: bool = False


def official_clips(name: str) -> dict[str, set[str]]:
    """Actor -> every clip that the official corpus has of them, named as here; {} for a corpus without an official list.

    CREMA-D: 7,442 of 91 actors, "1001_DFA_ANG_XX". RAVDESS speech: 1,440 of 24, "01-01-01-01-01-01", that is without the modality.
    """
    if name == "crema-d":
        one = [f"{s}_{e}_XX" for s, e in product(CREMA_SENTENCES, CREMA_EMOTION_CODES)]
        start = ["IEO_NEU_XX"] + [
            f"IEO_{e}_{level}"
            for e, level in product(CREMA_EMOTION_CODES, ("LO", "MD", "HI"))
            if e != "NEU"
        ]
        every = {
            str(actor): {f"{actor}_{rest}" for rest in (*one, *start)}
            for actor in range(1001, 1092)
        }
        return {
            a: {c for c in of if not c.startswith(CREMA_UNPUBLISHED)} for a, of in every.items()
        }
    if name == "ravdess":
        codes = [
            "-".join(c)
            for c in product(["01"], [f"{e:02d}" for e in range(1, 9)], *3 * [["01", "02"]])
        ]
        return {
            f"{a:02d}": {f"{c}-{a:02d}" for c in codes if not c.startswith("01-01-02")}
            for a in range(1, 25)
        }
    return {}


def list_media_files(
    root: Path, found: Findings, tick: ProgressCallback | None = None
) -> list[MediaFile]:
    """Media files below a folder and in its zips, in a zip, or in a table of own data; what cannot be read goes to `found`.

    In the order of `corpora.list_files`: plain files first, shallow before deep. Raises CorpusError for a table that is wrong.
    """
    if root.suffix.lower() == ".csv":
        return _list_table_files(root)
    files: list[MediaFile] = []
    todo, seen = [(root, "")], set()
    while todo:
        path, inside = todo.pop()
        try:
            if path.is_file():
                if path.suffix.lower() == ".zip" or path == root:
                    files += _list_members(path, inside, found)
                else:
                    files += _read_plain_file(path, inside, found)
            elif path.is_dir():
                state = path.stat()
                if (state.st_dev, state.st_ino) in seen:
                    found["link-loop"][_to_printable(inside)] = ""
                    continue
                seen.add((state.st_dev, state.st_ino))
                inner = [
                    p
                    for p in sorted(path.iterdir())
                    if not p.name.startswith(".") and p.name != "__MACOSX"
                ]
                inner.sort(key=lambda p: not p.is_symlink())
                last = sum(
                    p.is_symlink() for p in inner
                )  # links wait, so that a folder is met under its own name
                here = [(p, f"{inside}/{p.name}".lstrip("/")) for p in inner]
                todo = [*here[:last], *todo, *here[last:]]
            elif path.is_symlink():
                found["unreachable"][_to_printable(inside)] = "a link to nothing"
        except OSError as error:
            found["unreachable"][_to_printable(inside) or root.name] = (
                error.strerror or type(error).__name__
            )
        if tick and files and len(files) % 500 == 0:
            tick(len(files), len(files), "names")
    return sorted(files, key=lambda f: (bool(f.member), len(f.folder), f.name))


def _read_plain_file(path: Path, inside: str, found: Findings) -> list[MediaFile]:
    file = MediaFile(path, "", _to_printable(inside), path.stat().st_size, None, "")
    if not file.role:
        return []
    try:
        with path.open("rb") as content:
            return [
                dataclasses.replace(file, kind=clips.sniff_kind(content.read(probe.SNIFF_BYTES)))
            ]
    except OSError as error:
        found["unreachable"][file.name] = error.strerror or type(error).__name__
        return [file]


def _list_members(path: Path, inside: str, found: Findings) -> list[MediaFile]:
    files = []
    try:
        with path.open("rb") as content:
            head = clips.sniff_kind(content.read(probe.SNIFF_BYTES))
        if head in ("lfs", "empty"):
            found["pointer" if head == "lfs" else "empty"][_to_printable(inside or path.name)] = ""
            return []
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                shown = _to_printable(f"{inside}!{info.filename}" if inside else info.filename)
                file = MediaFile(path, info.filename, shown, info.file_size, info.CRC, "")
                if (
                    info.is_dir()
                    or not file.role
                    or any(p.startswith(".") or p == "__MACOSX" for p in info.filename.split("/"))
                ):
                    continue
                try:
                    if info.file_size > clips.Limits().bytes:
                        raise ValueError(f"{info.file_size / 2**20:.0f} MiB")
                    with archive.open(info) as content:
                        file = dataclasses.replace(
                            file, kind=clips.sniff_kind(content.read(probe.SNIFF_BYTES))
                        )
                except (
                    Exception
                ) as error:  # encrypted, damaged or an unknown packing: zipfile raises many things
                    found["unreadable"][shown] = error_reason(error)
                files.append(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        found["broken-archive"][_to_printable(inside or path.name)] = error_reason(error)
    return files


def _list_table_files(root: Path) -> list[MediaFile]:
    """The files that a table of own data lists."""
    references = {r: e for e in corpora.index_clips("own", root) for r in (e.video, e.audio) if r}
    parts = [(Path(r), _to_printable(os.path.relpath(r, root.parent))) for r in references]
    return [f for path, inside in parts for f in _read_plain_file(path, inside, {})]


def _to_printable(name: str) -> str:
    """A name that can be shown and stored: bytes that are no text, and control characters, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def error_reason(error: BaseException) -> str:
    """Its first line, for a table."""
    return (
        (str(error).strip().splitlines() or [type(error).__name__])[0]
        .removeprefix("it is ")
        .removeprefix("it ")[:160]
    )


def recognise_corpus(root: Path, files: Sequence[MediaFile], found: Findings) -> str:
    """The name of the corpus whose files these are, "own" for own data. Raises CorpusError if they follow no form known here."""
    own = root.suffix.lower() == ".csv"
    votes = Counter({"crema-d": 0, "ravdess": 0, "demo-clips": 0, "fer2013": 0})
    for f in files:
        for name, pattern in (
            ("crema-d", CREMA_NAME),
            ("ravdess", RAVDESS_NAME),
            ("demo-clips", DEMO_NAME),
        ):
            votes[name] += bool(pattern.match(f.stem)) and f.role != "picture"
        votes["fer2013"] += f.role == "picture" and _folder_emotion(f) != ""
        pairs = zip(f.folder[:2], f.folder[1:3], strict=False)
        own |= any(a.lower() in ("faces", "audio") and labels.emotion_of(b) != "" for a, b in pairs)
    best = max(votes, key=lambda name: votes[name])
    if own and best == "fer2013" or root.suffix.lower() == ".csv":
        return "own"
    if votes[best]:
        return best
    tables = [p.name for p in sorted(root.glob("*.csv"))] if root.is_dir() else []
    also = (
        f" It holds {tables[0]}: if that is a table of own data, give the file itself."
        if tables
        else ""
    )
    hurdles = {
        "broken-archive": "cannot be opened",
        "pointer": "is a git-lfs pointer (git lfs pull)",
        "unreachable": "cannot be read",
    }
    also += "".join(
        f" {n} {what}." for kind, what in hurdles.items() for n in list(found.get(kind, ()))[:3]
    )
    raise CorpusError(
        f"no corpus is recognised in {root}: of its {len(files):,} media files none is named as CREMA-D's (1001_DFA_ANG_XX.flv), RAVDESS' "
        f"(03-01-01-01-01-01-01.wav) or the demo's (demo_01_ANG_00.mp4), and no picture lies in a folder named by an emotion "
        f"(happy/1.jpg). Rename them so, or list them in a csv table (path, subject, label, clip) and give that.{also}"
    )


def _folder_emotion(file: MediaFile) -> str:
    return labels.emotion_of(file.folder[-1]) if file.folder else ""


def deduplicate(
    name: str, files: list[MediaFile], sums: dict[MediaFile, str], found: Findings
) -> list[MediaFile]:
    """Official names stand for one performance: of files of one name the first is kept, the others are copies or contradictions."""
    if name not in ("crema-d", "ravdess", "demo-clips"):
        return files
    kept: dict[str, MediaFile] = {}
    copies: Counter[tuple[tuple[str, ...], tuple[str, ...]]] = Counter()
    for file in files:
        first = kept.setdefault(PurePosixPath(file.member or file.path.name).name, file)
        if first is file:
            continue
        if first in sums and file in sums and sums[first] != sums[file] or file.size != first.size:
            found["name-twice"][file.name] = f"another content than {first.name}, which is taken"
            continue
        a, b = first.folder, file.folder
        while a and b and a[-1] == b[-1]:
            a, b = a[:-1], b[:-1]
        copies[a, b] += 1
    for (a, b), n in copies.items():
        found["nested-copy"][f"{'/'.join(b) or '.'} = {'/'.join(a) or '.'}"] = f"{n:,} files"
    return list(kept.values())


def group_by_clip(
    name: str, root: Path, files: list[MediaFile], found: Findings
) -> dict[str, ClipFiles]:
    """Clip -> its media, by the names; those that are not the corpus' own go to `found`."""
    groups: dict[str, ClipFiles] = defaultdict(ClipFiles)
    if name not in ("crema-d", "ravdess", "demo-clips", "fer2013"):
        known = {f.reference: f for f in files}
        try:
            entries = corpora.index_clips(name, root)
        except CorpusError:
            if found["broken-archive"] or found["unreachable"]:  # the report says so, and more
                return {}
            raise
        for e in entries:
            media = [
                [known[r] for r in {ref} - {None} if r in known]
                for ref in (e.video, e.audio if e.audio != e.video else None)
            ]
            groups[e.clip] = ClipFiles(e.subject, media[0], media[1], e.crop)
        return dict(groups)
    for f in files:
        if name == "fer2013":
            if f.role == "picture" and _folder_emotion(f):
                groups[f.name] = ClipFiles("", [f], [], True)
            else:
                found["wrong-name"][f.name] = ""
            continue
        match = {"crema-d": CREMA_NAME, "ravdess": RAVDESS_NAME, "demo-clips": DEMO_NAME}[
            name
        ].match(f.stem)
        if f.role == "picture":  # nobody's clip; official copies hold some
            continue
        if not match:
            found["wrong-name"][f.name] = ""
        elif name == "ravdess" and match[2] == "02":
            found["song"][f.name] = ""
        else:
            key = f.stem[3:] if name == "ravdess" else f.stem
            if name == "crema-d" and match[4] == "X":
                found["odd-name"][f.name], key = "", key + "X"
            clip = groups[key]
            clip.subject = key[-2:] if name == "ravdess" else match[1]
            (clip.videos if f.role == "video" else clip.sounds).append(f)
    for clip in groups.values():
        if name == "ravdess":
            clip.videos.sort(key=lambda f: f.stem)
        else:  # the form that `corpora.index` prefers
            clip.videos, clip.sounds = (
                sorted(m, key=lambda f: _extension_rank(f))[:1] for m in (clip.videos, clip.sounds)
            )
    return dict(groups)


def _extension_rank(file: MediaFile) -> int:
    return corpora.MEDIA_EXTENSIONS[file.role].index(
        PurePosixPath(file.member or file.path.name).suffix.lower()
    )
