"""Files of given contents, in folders and in zips."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

Contents = dict[str, bytes] | Iterable[str]  # path -> content, or paths of empty files


def write_files(folder: Path, contents: Contents) -> Path:
    """Write files of these paths below a folder; returns the folder."""
    contents = contents if isinstance(contents, dict) else dict.fromkeys(contents, b"")
    for parent in {(folder / name).parent for name in contents}:
        parent.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def write_zip(path: Path, contents: Contents, slash: str = "/") -> Path:
    """Write a zip with members of these paths; some programs of Windows write backslashes."""
    contents = contents if isinstance(contents, dict) else dict.fromkeys(contents, b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo(name)
            info.filename = name.replace("/", slash)
            archive.writestr(info, content)
    return path
