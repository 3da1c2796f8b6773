"""§4.1: all media files of a corpus, by their names and first bytes, and the clips that they make.

`sources.indexing` lists what is usable and refuses the rest. Here everything is listed, and what is
odd is noted in `findings`, so that the doctor can say what keeps a file from being used.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.data import labels
from core.data.corpora import NAME_PATTERNS, CorpusError, official_clips
from core.data.sources import indexing, media_files, own_data
from core.data.sources.media_files import file_stem, media_kind
from core.files import printable
from core.media import containers

TICK_FILES = 500  # files between two calls of the progress callback while names are listed
MAX_REASON_CHARACTERS = 160

ProgressCallback = Callable[[int, int, str], None]  # (done, total, phase)
Findings = dict[str, dict[str, str]]  # kind of fault -> name -> detail, "" if there is none


@dataclass(frozen=True)
class MediaFile:
    """One media file, or one member of a zip."""

    path: Path
    member: str  # inside the zip `path`, or ""
    name: str  # for people: inside the root, printable
    size: int  # bytes
    crc: int | None  # CRC-32 of a zip's member
    kind: str  # as of `containers.sniff_kind`, "" where it could not be read

    @functools.cached_property
    def basename(self) -> str:
        return os.path.basename(media_files.path_in_zip(self.member) or self.path.name)

    @functools.cached_property
    def stem(self) -> str:
        return file_stem(self.basename)

    @functools.cached_property
    def role(self) -> str:
        """picture, video or audio, by the name's ending, else by the content; "" for others."""
        return media_kind(self.basename)[0] or media_files.KIND_ROLES.get(self.kind, "")

    @property
    def reference(self) -> str:
        return f"{self.path}!{self.member}" if self.member else str(self.path)

    @functools.cached_property
    def folder(self) -> tuple[str, ...]:
        """Folders inside the root; a zip counts as one."""
        return tuple(self.name.replace("!", "/").split("/")[:-1])

    @property
    def folder_emotion(self) -> str:
        """The emotion that the name of the file's folder gives, or ""."""
        return labels.emotion_of(self.folder[-1]) if self.folder else ""

    def content(self) -> bytes:
        """All its bytes, as preparation reads them. Raises MediaError."""
        return media_files.read_content(self.reference)


@dataclass
class ClipFiles:
    """The files that make one clip."""

    subject: str = ""
    videos: list[MediaFile] = field(default_factory=list)  # those with sound first
    sounds: list[MediaFile] = field(default_factory=list)
    crop: bool = False
    as_published: bool = False  # as of `features.ExtractionSettings`
    needs_sound: bool = True  # without a sound file its voice is that of its video


def list_media_files(
    root: Path, findings: Findings, tick: ProgressCallback | None = None
) -> list[MediaFile]:
    """Media files below a folder and in its zips, in a zip, or in a table of own data.

    The order is that of `media_files.list_files`: plain files first, shallow before deep. What
    cannot be read goes to `findings`. Raises CorpusError for a table that is wrong.
    """
    if own_data.is_table(root):
        return _list_table_files(root)

    def report(problem: str, inside: str, reason: str) -> None:
        kind = problem if problem in ("link-loop", "passed-over") else "unreachable"
        findings[kind][printable(inside) or root.name] = reason

    files: list[MediaFile] = []
    walk = [(str(root), "")] if root.is_file() else media_files.walk(root, report)
    for name, inside in walk:
        path = Path(name)
        try:
            if path.suffix.lower() == ".zip" or path == root:
                files += _list_members(path, inside, findings)
            else:
                files += _read_plain_file(path, inside, findings)
        except OSError as error:
            report("unreachable", inside, error.strerror or type(error).__name__)
        if tick and files and len(files) % TICK_FILES == 0:
            tick(len(files), len(files), "names")
    return sorted(files, key=lambda f: (bool(f.member), len(f.folder), f.name))


def _read_plain_file(path: Path, inside: str, findings: Findings) -> list[MediaFile]:
    file = MediaFile(path, "", printable(inside), path.stat().st_size, None, "")
    try:
        with path.open("rb") as content:
            kind = containers.sniff_kind(content.read(containers.SNIFF_BYTES))
    except OSError as error:
        findings["unreachable"][file.name] = error.strerror or type(error).__name__
        return [file]
    return [file] if _is_medium(file := dataclasses.replace(file, kind=kind), findings) else []


def _is_medium(file: MediaFile, findings: Findings) -> bool:
    """Whether a file is listed; what is no picture, video or sound goes to `findings`."""
    if not file.role:
        findings["passed-over"][file.name] = media_files.NO_MEDIUM
    return bool(file.role)


def _list_members(path: Path, inside: str, findings: Findings) -> list[MediaFile]:
    files, shown = [], printable(inside or path.name)
    with path.open("rb") as content:
        kind = containers.sniff_kind(content.read(containers.SNIFF_BYTES))
    if kind in ("lfs", "empty"):
        findings["pointer" if kind == "lfs" else "empty"][shown] = ""
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            for info in media_files.zip_members(path):
                member = media_files.path_in_zip(info.filename)
                name = f"{inside}!{member}" if inside else member
                file = MediaFile(path, info.filename, printable(name), info.file_size, info.CRC, "")
                try:
                    if info.file_size > containers.DEFAULT_LIMITS.bytes:
                        raise ValueError(f"{info.file_size / 2**20:.0f} MiB")
                    with archive.open(info) as content:
                        head = content.read(containers.SNIFF_BYTES)
                    file = dataclasses.replace(file, kind=containers.sniff_kind(head))
                except Exception as error:  # encrypted, damaged, unknown packing: many types
                    findings["unreadable"][file.name] = error_reason(error)
                if _is_medium(file, findings):
                    files.append(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        findings["broken-archive"][shown] = error_reason(error)
    return files


def _list_table_files(root: Path) -> list[MediaFile]:
    """The files that a table of own data lists."""
    references = {r: e for e in indexing.index_clips("own", root) for r in (e.video, e.audio) if r}
    parts = [(Path(r), printable(os.path.relpath(r, root.parent))) for r in references]
    return [f for path, inside in parts for f in _read_plain_file(path, inside, {})]


def error_reason(error: BaseException) -> str:
    """The first line of an error's message, for a table."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.removeprefix("it is ").removeprefix("it ")[:MAX_REASON_CHARACTERS]


def recognise_corpus(root: Path, files: Sequence[MediaFile], findings: Findings) -> str:
    """The name of the corpus whose files these are, "own" for own data.

    Raises CorpusError if the files follow no form that is known here.
    """
    if own_data.is_table(root):
        return "own"
    own = False
    votes = Counter({"crema-d": 0, "ravdess": 0, "demo-clips": 0, "fer2013": 0})
    for f in files:
        for name, pattern in NAME_PATTERNS.items():
            votes[name] += bool(pattern.match(f.stem)) and f.role != "picture"
        votes["fer2013"] += f.role == "picture" and f.folder_emotion != ""
        own |= own_data.is_labelled("/".join((*f.folder, f.basename)))
    best = max(votes, key=lambda name: votes[name])
    if own and (best == "fer2013" or not votes[best]):
        return "own"
    if votes[best]:
        return best
    unreachable = findings.get("unreachable", {})
    if not files and unreachable:  # the machine's fault, which says nothing about the corpus
        name, why = next(iter(unreachable.items()))
        raise CorpusError(f"{root} cannot be examined: {name} cannot be read ({why}); mend that")
    hints = ""
    if tables := sorted(root.glob("*.csv")) if root.is_dir() else []:
        hints = f" It holds {tables[0].name}: if that is a table of own data, give the file itself."
    for kind, hurdle in (
        ("broken-archive", "cannot be opened"),
        ("pointer", "is a git-lfs pointer (git lfs pull)"),
        ("unreachable", "cannot be read"),
    ):
        hints += "".join(f" {n} {hurdle}." for n in list(findings.get(kind, ()))[:3])
    raise CorpusError(
        f"no corpus is recognised in {root}: of its {len(files):,} media files none is named as "
        "CREMA-D's (1001_DFA_ANG_XX.flv), RAVDESS' (03-01-01-01-01-01-01.wav) or the demo's "
        "(demo_01_ANG_00.mp4), and no picture lies in a folder named by an emotion (happy/1.jpg). "
        "Rename them so, lay your own in faces/<emotion>/ and audio/<emotion>/ (a person's folder "
        "may lie above or below an emotion's), or list them in a csv table (path, subject, label, "
        "clip) and give that."
        f"{hints}"
    )


def deduplicate(
    name: str, files: list[MediaFile], digests: dict[MediaFile, str], findings: Findings
) -> list[MediaFile]:
    """Keep the first file of each official name; note the others as copies or as contradictions.

    An official name identifies one performance. Other corpora are returned as they are.
    """
    if name not in NAME_PATTERNS:
        return files
    unique: dict[str, MediaFile] = {}
    copies: Counter[tuple[tuple[str, ...], tuple[str, ...]]] = Counter()
    for file in files:
        first = unique.setdefault(file.basename, file)
        if first is file:
            continue
        hashed = first in digests and file in digests
        if hashed and digests[first] != digests[file] or file.size != first.size:
            what = f"another content than {first.name}, which is taken"
            findings["name-twice"][file.name] = what
            continue
        a, b = first.folder, file.folder
        while a and b and a[-1] == b[-1]:
            a, b = a[:-1], b[:-1]
        copies[a, b] += 1
    for (a, b), n in copies.items():
        findings["nested-copy"][f"{'/'.join(b) or '.'} = {'/'.join(a) or '.'}"] = f"{n:,} files"
    return list(unique.values())


def group_by_clip(
    name: str, root: Path, files: list[MediaFile], findings: Findings
) -> dict[str, ClipFiles]:
    """Clip -> its media, by their names; files with other names go to `findings`."""
    if name == "fer2013":
        for f in files:
            if f.role != "picture" or not f.folder_emotion:
                similar = labels.similar_emotion(f.folder[-1]) if f.folder else ""
                means = f"its folder may mean {similar}" if similar else ""
                findings["wrong-name"][f.name] = means
        people = own_data.unused_people("/".join((*f.folder, f.basename)) for f in files)
        findings["passed-over"] |= {f"{folder}/": indexing.NO_PERSON for folder in people}
        pictures = (f for f in files if f.role == "picture" and f.folder_emotion)
        return {f.name: ClipFiles("", [f], crop=True, as_published=True) for f in pictures}
    if name not in NAME_PATTERNS:
        return _group_own_data(name, root, files, findings)
    # Without the tables and texts that come with an official corpus
    kept = {n: why for n, why in findings["passed-over"].items() if why != media_files.NO_MEDIUM}
    findings["passed-over"] = kept
    groups: dict[str, ClipFiles] = defaultdict(ClipFiles)
    for f in files:
        match = NAME_PATTERNS[name].match(f.stem)
        if f.role == "picture":  # belongs to no clip; official copies hold some
            continue
        if not match:
            findings["wrong-name"][f.name] = ""
        elif name == "ravdess" and match[2] == "02":
            findings["song"][f.name] = ""
        else:
            key = f.stem[3:] if name == "ravdess" else f.stem
            if name == "crema-d" and match[4] == "X":
                findings["odd-name"][f.name], key = "", key + "X"
            clip = groups[key]
            clip.subject = key[-2:] if name == "ravdess" else match[1]
            (clip.videos if f.role == "video" else clip.sounds).append(f)
    for clip in groups.values():
        if name == "ravdess":
            clip.videos.sort(key=lambda f: f.stem)
        else:  # the one file that `indexing` prefers
            for media in (clip.videos, clip.sounds):
                media[:] = sorted(media, key=lambda f: media_kind(f.basename)[1])[:1]
    return dict(groups)


def _group_own_data(
    name: str, root: Path, files: list[MediaFile], findings: Findings
) -> dict[str, ClipFiles]:
    """Clip -> its media, by the index of own data; {} where the findings say why there is none."""
    known = {f.reference: f for f in files}
    try:
        index = indexing.index_corpus(name, root)
    except CorpusError:
        if findings["broken-archive"] or findings["unreachable"]:
            return {}
        raise
    findings["passed-over"] = index.passed_over
    for kind in ("broken-archive", "pointer", "empty"):  # zips are passed over too
        kept = {n: d for n, d in findings[kind].items() if n not in index.passed_over}
        findings[kind] = kept
    groups, emotions = {}, defaultdict(set)
    for e in index.entries:
        for reference in filter(None, {e.video, e.audio}):
            if reference in known:
                emotions[known[reference].name].add(e.emotion)
        sound = e.audio if e.audio != e.video else None
        video, audio = ([known[r]] if r in known else [] for r in (e.video, sound))
        has_sound = e.audio is not None
        groups[e.clip] = ClipFiles(e.subject, video, audio, e.crop, needs_sound=has_sound)
    for file, of in emotions.items():
        if len(of) > 1:  # in several rows of a table
            labels_of = " and once as ".join(sorted(of))
            findings["duplicate"][f"{file} = {file}"] = f"once as {labels_of}"
    return groups


def compare_with_official(name: str, groups: dict[str, ClipFiles], found: Findings) -> None:
    """Note clips that differ from the official list, and counts that differ.

    A clip counts as missing only if more than half of its actor's clips are here; otherwise the
    actor was left out on purpose.
    """
    lists = official_clips(name)
    if not lists:
        return
    present: dict[str, set[str]] = defaultdict(set)
    for key, clip in groups.items():
        present[clip.subject].add(key)
    for actor, expected in lists.items():
        here = present[actor]
        if 2 * len(here & expected) <= len(expected):
            continue
        found["missing-clips"] |= dict.fromkeys(expected - here, "")
        for modality in ("01", "02") if name == "ravdess" else ():
            films = [f.stem for key in here for f in groups[key].videos]
            filmed = {stem[3:] for stem in films if stem[:2] == modality}
            if 2 * len(filmed) > len(expected):
                absent = {key for key in expected & here - filmed if groups[key].videos}
                found["missing-clips"] |= {f"{modality}-{key}": "" for key in absent}
    found["not-official"] |= dict.fromkeys(set(groups) - set().union(*lists.values()), "")
    total, actors = sum(map(len, lists.values())), len({c.subject for c in groups.values()})
    if len(groups) != total:
        count = f"{len(groups):,} of {total:,} clips, {actors} of {len(lists)} actors"
        found["count"][count] = ""
    videos = sum(len(c.videos) for c in groups.values())
    if name == "ravdess" and videos not in (0, 2 * total):
        found["count"][f"{videos:,} of {2 * total:,} videos"] = ""
