"""Files of a corpus, in folders and in zips, by name alone: git-lfs pointers count as media.

A media reference is 'path', or 'archive.zip!member' for a member of a zip.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from core.data.corpora import CorpusError

# Kind -> endings; when a file is read, its content decides. Of two files of one CREMA-D clip, the
# one with the earlier ending is taken: the official flv or wav before a converted file.
MEDIA_EXTENSIONS = {
    "picture": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    "video": (
        *(".flv", ".mp4", ".mov", ".m4v", ".mkv", ".webm"),
        *(".avi", ".mpg", ".mpeg", ".wmv", ".ogv"),
    ),
    "audio": (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg"),
}


def walk(root: Path, report: Callable[[str, str, str], None]) -> Iterator[tuple[str, str]]:
    """Every file below a folder as (path, path inside the folder), in no particular order.

    Hidden names and __MACOSX are skipped. Links to folders are followed last, so that a folder is
    found under its own name. `report(problem, inside, reason)` is called for what is
    skipped: a "link-loop" to a folder seen before, an "unreadable-folder", a "dangling" link.
    """
    folders, seen = [(str(root), "")], set()
    links: list[tuple[str, str]] = []
    while folders or links:
        folder, inside = folders.pop() if folders else links.pop(0)
        try:
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in seen:
                report("link-loop", inside, "")
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(folder) as scan:
                items = sorted(scan, key=lambda item: item.name)
        except OSError as e:
            report("unreadable-folder", inside, e.strerror or type(e).__name__)
            continue
        for item in items:
            if is_hidden(item.name):
                continue
            path = f"{inside}/{item.name}".lstrip("/")
            try:
                if item.is_dir():
                    (links if item.is_symlink() else folders).append((item.path, path))
                elif item.is_file():
                    yield item.path, path
                elif item.is_symlink():
                    report("dangling", path, "a link to nothing")
            except OSError as e:
                report("dangling", path, e.strerror or type(e).__name__)


def zip_members(archive: str | Path) -> list[zipfile.ZipInfo]:
    """Members of a zip that are neither folders nor hidden. Raises what zipfile raises."""
    with zipfile.ZipFile(archive) as z:
        members = z.infolist()
    return [m for m in members if not m.is_dir() and not any(map(is_hidden, _inside(m).split("/")))]


def _inside(member: zipfile.ZipInfo) -> str:
    return member.filename.replace("\\", "/").removeprefix("./")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is skipped, such as .git with its git-lfs objects."""
    return name == "__MACOSX" or (name.startswith(".") and name not in (".", ".."))


def list_files(root: Path) -> list[tuple[str, str]]:
    """Files below a folder and in its zips, or members of a zip: (reference, path in the corpus).

    A zip's members have the paths that they would have if it were unpacked into a folder of its
    name. Plain files come before members, shallow before deep, then by name: of several copies the
    first is the one to read. Raises CorpusError where a folder or zip cannot be read.
    """

    def refuse(problem: str, inside: str, reason: str) -> None:
        if problem == "unreadable-folder":
            folder = root / inside
            message = f"{folder} cannot be read ({reason}); allow it, or move it out of {root}"
            raise CorpusError(message)

    if root.is_file():
        return sorted(_members_of(str(root), ""), key=_sort_key)
    plain = list(walk(root, refuse))
    archives = {file for file in plain if file[1].lower().endswith(".zip")}
    members = [m for file, path in archives for m in _members_of(file, path[:-4] + "/")]
    return sorted(set(plain) - archives, key=_sort_key) + sorted(members, key=_sort_key)


def _sort_key(found: tuple[str, str]) -> tuple[int, str, str]:
    return found[1].count("/"), found[1], found[0]


def _members_of(archive: str, folder: str) -> list[tuple[str, str]]:
    try:
        return [(f"{archive}!{m.filename}", folder + _inside(m)) for m in zip_members(archive)]
    except (zipfile.BadZipFile, OSError) as e:
        message = f"{archive} is not a zip archive or is damaged ({e}); download it again"
        raise CorpusError(message) from e


@contextlib.contextmanager
def media_file(reference: str) -> Iterator[Path]:
    """The file of a media reference; a member of a zip becomes a temporary file while in use."""
    archive, member = split_reference(reference)
    if not member:
        yield Path(reference)
        return
    with tempfile.TemporaryDirectory() as d:
        path = Path(d) / ("media" + Path(member).suffix)
        path.write_bytes(_open_archive(archive, Path(archive).stat().st_mtime_ns).read(member))
        yield path


def split_reference(reference: str) -> tuple[str, str]:
    """(archive, member) of a reference, (path, "") of a plain file; names may hold '!' too."""
    at = reference.find("!")
    while at >= 0:
        if os.path.isfile(reference[:at]):
            return reference[:at], reference[at + 1 :]
        at = reference.find("!", at + 1)
    return reference, ""


# 64 archives stay open: RAVDESS is 48 zips, its clips are read across them, and reading the list of
# thousands of members takes long. Reading from an open archive is thread-safe.
@functools.lru_cache(maxsize=64)
def _open_archive(path: str, mtime: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def media_kind(path: str) -> tuple[str, int]:
    """Kind of a file by its ending, and the ending's rank; ("", 0) for anything else.

    >>> media_kind("Actor_01/03-01-01-01-01-01-01.WAV"), media_kind("notes.txt")
    (('audio', 0), ('', 0))
    """
    ending = os.path.splitext(path)[1].lower()
    for kind, endings in MEDIA_EXTENSIONS.items():
        if ending in endings:
            return kind, endings.index(ending)
    return "", 0


def file_stem(path: str) -> str:
    """A file's name without folders and ending."""
    return os.path.splitext(os.path.basename(path))[0]
