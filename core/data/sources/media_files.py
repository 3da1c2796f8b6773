"""Files of a corpus, in folders and in zips, by name alone: git-lfs pointers count as media.

A media reference is 'path', or 'archive.zip!member' for a member of a zip.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from core.data.corpora import CorpusError
from core.files import printable
from core.media import containers
from core.media.containers import MediaError, UnreadableError

# Kind -> endings; when a file is read, its content decides. Of two files of one CREMA-D clip, the
# one with the earlier ending is taken: the official flv or wav before a converted file.
MEDIA_EXTENSIONS = {
    "picture": (
        *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jfif", ".jpe", ".gif"),
        *(".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif"),
    ),
    "video": (
        *(".flv", ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv"),
        *(".ogv", ".3gp", ".3g2", ".mts", ".m2ts", ".asf", ".vob", ".f4v", ".qt"),
    ),
    "audio": (
        *(".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".oga", ".aif", ".aiff"),
        *(".aifc", ".caf", ".au", ".snd", ".amr", ".wma", ".mka", ".weba", ".mp2", ".w64"),
    ),
}

ENDING_KINDS = {
    ending: (kind, rank)
    for kind, endings in MEDIA_EXTENSIONS.items()
    for rank, ending in enumerate(endings)
}
NO_MEDIUM = "no picture, video or sound of a form that is read here"  # why a file is passed over
KIND_ROLES = {  # kind of a file by its content -> its role in a corpus
    **dict.fromkeys(containers.AUDIO_DEMUXERS, "audio"),
    **dict.fromkeys(containers.VIDEO_DEMUXERS, "video"),
    **dict.fromkeys((*containers.PICTURE_FORMATS, "gif"), "picture"),
}


NO_BEGINNING = "its beginning is missing"  # of a zip that is cut, or the last of several parts
SAME_MEMBER = "another member of the same name is taken"


READ_FIXES = {
    errno.EACCES: "allow it, or copy it here",
    errno.EPERM: "allow it, or copy it here",
    errno.ENOENT: "put it back, or give another source",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


class BrokenArchiveError(CorpusError):
    """A file that is no zip, or a damaged one; the message says what it is."""


def walk(root: Path, report: Callable[[str, str, str], None]) -> Iterator[tuple[str, str]]:
    """Every file below a folder as (path, path inside the folder), in no particular order.

    The path inside the folder is the same in every locale. Hidden names and __MACOSX are skipped.
    Links to folders are followed last, so that a folder is found under its own name.
    `report(problem, inside, reason)` is called for what is skipped: a "link-loop" to a folder seen
    before, what is "unreadable", and as "passed-over" a link to nothing and what is neither file
    nor folder.
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
            report("unreadable", inside, e.strerror or type(e).__name__)
            continue
        for item in items:
            if is_hidden(item.name):
                continue
            path = f"{inside}/{decoded(item.name)}".lstrip("/")
            try:
                if item.is_dir():
                    (links if item.is_symlink() else folders).append((item.path, path))
                elif item.is_file():
                    yield item.path, path
                else:
                    what = "a link to nothing" if item.is_symlink() else "a device or a pipe"
                    report("passed-over", path, what)
            except OSError as e:
                if e.errno == errno.ELOOP:
                    report("passed-over", path, "a link to itself")
                else:
                    report("unreadable", path, e.strerror or type(e).__name__)


def zip_members(archive: str | Path, repeated: list[str] | None = None) -> list[zipfile.ZipInfo]:
    """Members of a zip that are neither folders nor hidden. Raises what zipfile raises.

    Of several members of one name the last is the one that is unpacked; the paths of the others are
    added to `repeated`.
    """
    with zipfile.ZipFile(archive) as z:
        members = z.infolist()
    if any(m.header_offset < 0 for m in members):
        raise zipfile.BadZipFile(NO_BEGINNING)
    files = [m for m in members if not path_in_zip(m.filename).endswith("/")]
    shown = [m for m in files if not any(map(is_hidden, path_in_zip(m.filename).split("/")))]
    last = {m.filename: m for m in shown}
    if repeated is not None:
        repeated += [path_in_zip(m.filename) for m in shown if last[m.filename] is not m]
    return list(last.values())


def path_in_zip(member: str) -> str:
    r"""A member's path with slashes, as some programs of Windows write backslashes.

    Others (macOS) write UTF-8 without saying so, which zipfile takes for code page 437.

    >>> path_in_zip("a\\Zoë.wav".encode().decode("cp437"))
    'a/Zoë.wav'
    """
    with contextlib.suppress(UnicodeError):
        member = member.encode("cp437").decode("utf-8")
    return member.replace("\\", "/").removeprefix("./")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is skipped, such as .git with its git-lfs objects."""
    return name == "__MACOSX" or (name.startswith(".") and name not in (".", ".."))


def list_files(
    root: Path, passed_over: dict[str, str], skip_broken: bool = False
) -> list[tuple[str, str]]:
    """Files below a folder and in its zips, or members of a zip: (reference, path in the corpus).

    A zip's members have the paths that they would have if it were unpacked into a folder of its
    name. Plain files come before members, shallow before deep, then by name: of several copies the
    first is the one to read. `passed_over` gets what is no file: path -> reason; with `skip_broken`
    also zips below a folder that are no zips. Raises CorpusError where a folder or zip cannot be
    read.
    """

    def refuse(problem: str, inside: str, reason: str) -> None:
        if problem == "unreadable":
            where = root / inside
            message = f"{where} cannot be read ({reason}); mend that, or move it out of {root}"
            raise CorpusError(message)
        if problem == "passed-over":
            passed_over[printable(inside)] = reason

    if root.is_file():
        return sorted(_members_of(str(root), "", passed_over), key=_sort_key)
    plain = list(walk(root, refuse))
    archives = {file for file in plain if file[1].lower().endswith(".zip")}
    members: list[tuple[str, str]] = []
    for file, path in archives:
        try:
            members += _members_of(file, path[:-4] + "/", passed_over)
        except BrokenArchiveError as e:
            if not skip_broken:
                raise
            passed_over[printable(path)] = str(e).removeprefix(f"{file} is ")
    return sorted(set(plain) - archives, key=_sort_key) + sorted(members, key=_sort_key)


def _sort_key(found: tuple[str, str]) -> tuple[int, str, str]:
    return found[1].count("/"), found[1], found[0]


def _members_of(archive: str, folder: str, passed_over: dict[str, str]) -> list[tuple[str, str]]:
    repeated: list[str] = []
    try:
        members = zip_members(archive, repeated)
    except OSError as e:
        raise CorpusError(_read_fault(archive, e)) from e
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as e:
        raise BrokenArchiveError(_archive_fault(archive, e)) from e
    for path in repeated:
        passed_over[printable(f"{folder}{path} (an earlier member)")] = SAME_MEMBER
    return [(f"{archive}!{m.filename}", folder + path_in_zip(m.filename)) for m in members]


def _archive_fault(path: str, error: Exception) -> str:
    """What a file is that is not read as a zip, and what to do."""
    with open(path, "rb") as file:
        head = file.read(containers.SNIFF_BYTES)
    kind = containers.sniff_kind(head)
    if head[:4] == b"PK\7\10" or str(error) == NO_BEGINNING:
        return f"{path} is one part of a zip in several parts; join them into one zip, or unpack it"
    if head[:2] == b"PK":
        return f"{path} is not a zip archive or is damaged ({error}); download it again"
    if kind == "lfs":
        return f"{path} is a git-lfs pointer, not the archive; in its folder run: git lfs pull"
    if kind == "empty":
        return f"{path} is empty; copy it again"
    if kind in containers.MEDIA_KINDS:
        what = f"{path} is a single media file ({kind})"
        return f"{what}; give the folder, the zip or the table of a corpus"
    archives = (b"Rar!", b"7z\xbc\xaf", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
    if head.startswith(archives) or head[257:262] == b"ustar":
        what = containers.OTHER_FILES[next((m for m in archives if head.startswith(m)), b"PK\3\4")]
        what = "a tar archive" if head[257:262] == b"ustar" else what
        return f"{path} is {what}, and zips alone are read packed; unpack it and give the folder"
    what = containers.describe_unknown(head).removeprefix("not a media file but ")
    return f"{path} is {what}; give the folder, the zip or the table of a corpus"


def _read_fault(path: str, error: OSError) -> str:
    """Why the machine cannot read a file, with the fix where there is a usual one."""
    fix = READ_FIXES.get(error.errno or 0, "")
    return f"{path} cannot be read ({error.strerror or error}){fix and '; ' + fix}"


def read_content(reference: str) -> bytes:
    """All bytes of a media reference, of at most containers.DEFAULT_LIMITS.bytes.

    Raises containers.UnreadableError where the machine cannot read it, MediaError where a member
    cannot be unpacked or the file is too large.
    """
    archive, member = split_reference(reference)
    name = os.path.basename(path_in_zip(member) or archive)
    try:
        state = os.stat(archive)
        z = _open_archive(archive, state.st_mtime_ns) if member else None
        size = z.getinfo(member).file_size if z else state.st_size
        if size > containers.DEFAULT_LIMITS.bytes:
            most = containers.DEFAULT_LIMITS.bytes >> 20
            what = f"{name} has {size >> 20} MiB; at most {most} are taken"
            raise MediaError(f"{what}. Cut it or export it smaller")
        return z.read(member) if z else Path(archive).read_bytes()
    except OSError as e:
        raise UnreadableError(_read_fault(archive, e)) from e
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as e:
        what = f"{name} is damaged inside {os.path.basename(archive)} ({e})"
        raise MediaError(f"{what}; download that zip again") from e
    except (RuntimeError, NotImplementedError) as e:
        locked = "encrypted" in str(e) or "password" in str(e)
        what = "encrypted" if locked else f"packed in a way that is not read here ({e})"
        raise MediaError(
            f"{name} is {what} in {os.path.basename(archive)}; unpack it and give the folder"
        ) from e


def head_kind(reference: str) -> str:
    """The kind of a media reference by its first bytes, "" for a member that cannot be unpacked.

    Raises UnreadableError.
    """
    archive, member = split_reference(reference)
    try:
        if not member:
            with open(archive, "rb") as file:
                return containers.sniff_kind(file.read(containers.SNIFF_BYTES))
        z = _open_archive(archive, os.stat(archive).st_mtime_ns)
        with z.open(member) as file:
            return containers.sniff_kind(file.read(containers.SNIFF_BYTES))
    except OSError as e:
        raise UnreadableError(_read_fault(archive, e)) from e
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, NotImplementedError):
        return ""


def media_role(reference: str, path: str) -> str:
    """picture, video or audio: by the ending of `path`, where that is unknown by the content.

    "" for a file that is no medium. Raises UnreadableError.
    """
    return media_kind(path)[0] or KIND_ROLES.get(head_kind(reference), "")


def find_file(folder: Path, name: str) -> str | None:
    """The file that a table calls `name`, relative to `folder`; None if it is not there.

    Backslashes count as slashes. Names are compared in Unicode's composed form, as macOS writes
    them decomposed, and in UTF-8, whatever the locale; where none is the same, the only one that
    differs in capitals alone counts, as on Windows. Raises OSError where the machine cannot look.
    """
    for one in (name, name.replace("\\", "/")):
        if _is_file(folder / one):
            return str(folder / one)
    at = folder
    for part in Path(one).parts:
        wanted = unicodedata.normalize("NFC", part)
        if not (at / part).exists():
            names = os.listdir(at) if at.is_dir() else []
            composed = {n: unicodedata.normalize("NFC", decoded(n)) for n in names}
            same = [n for n, shown in composed.items() if shown == wanted]
            alike = [n for n, shown in composed.items() if shown.lower() == wanted.lower()]
            part = same[0] if same else alike[0] if len(alike) == 1 else part
        at = at / part
    return str(at) if _is_file(at) else None


def decoded(name: str) -> str:
    """A file's name as UTF-8 has it, in a locale of any encoding; other bytes stay as surrogates.

    >>> decoded("Zoë.wav")
    'Zoë.wav'
    """
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def check_source(root: Path, hint: str) -> None:
    """Raise CorpusError where a source is neither a file nor a folder; `hint` says what to give."""
    try:
        mode = os.stat(root).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as e:
        dangling = root.is_symlink() and not isinstance(e, ValueError)
        what = "is a link to nothing" if dangling else "does not exist"
        raise CorpusError(printable(f"{root} {what}; {hint}")) from e
    except OSError as e:
        what = "is a link to itself" if e.errno == errno.ELOOP else f"cannot be read ({e.strerror})"
        raise CorpusError(printable(f"{root} {what}; {hint}")) from e
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise CorpusError(f"{root} is a device or a pipe; {hint}")


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


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
    return ENDING_KINDS.get(os.path.splitext(path)[1].lower(), ("", 0))


def file_stem(path: str) -> str:
    """A file's name without folders and ending."""
    return os.path.splitext(os.path.basename(path))[0]
