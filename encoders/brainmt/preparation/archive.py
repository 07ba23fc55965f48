"""Members of zip archives, read without unpacking; archives that could do harm are refused.

Refused are absolute names, `..`, links, encrypted members, more than :data:`MOST_MEMBERS` members, members above the
size cap and members that grow more than :data:`RATIO` times. Nothing is ever written to disk.
"""

import io
import stat
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from encoders.brainmt.preparation.quarantine import ScanRefused

RATIO = 100  # decompressed over compressed bytes; a zip of scans that are gzipped already has about 1
SMALL = 2**20  # bytes; below this any ratio is harmless, and logs of repeated lines exceed it
MOST_MEMBERS = 100_000
TEXT_BYTES = 2**26  # largest text file taken, motion parameters say
COPY_AGAIN = "copy or download it again"
FETCH_AGAIN = "fetch the archive again from its source; do not unpack this one"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file inside a zip archive.

    Args:
        archive: The archive.
        member: Its name in the archive.
    """

    archive: Path
    member: str

    @property
    def name(self) -> str:
        """The file's own name, as of a path."""
        return PurePosixPath(self.member).name


File = Path | Member


def list_members(archive: Path, *, max_bytes: int) -> list[str]:
    """Names of the files in a zip archive, after all of them were checked.

    Args:
        archive: The archive.
        max_bytes: Largest decompressed size of one member in bytes.

    Raises:
        ScanRefused: E_READ, E_ARCHIVE (damaged, or it could do harm) or E_SIZE.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
    except zipfile.BadZipFile as cause:
        raise ScanRefused("E_ARCHIVE", f"it is no whole zip archive ({cause})", COPY_AGAIN) from cause
    except OSError as cause:
        raise ScanRefused(
            "E_READ", f"it cannot be read ({cause.strerror})", "check the file and its permissions"
        ) from cause
    if len(members) > MOST_MEMBERS:
        raise ScanRefused(
            "E_ARCHIVE", f"it has {len(members)} members, at most {MOST_MEMBERS} are taken", FETCH_AGAIN
        )
    for member in members:
        if wrong := _danger(member):
            raise ScanRefused("E_ARCHIVE", f"its member {member.filename!r} {wrong}", FETCH_AGAIN)
        if member.file_size > max_bytes:
            raise ScanRefused(
                "E_SIZE",
                f"its member {member.filename!r} declares {member.file_size / 2**30:.1f} GiB, the limit is "
                f"{max_bytes / 2**30:.1f} GiB",
                "check the file; if it is right, raise --max_gib",
            )
    names = [member.filename for member in members if not member.is_dir()]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ScanRefused("E_ARCHIVE", f"it has two members named {twice!r}", FETCH_AGAIN)
    return names


def open_file(file: File) -> BinaryIO:
    """A file or a member of an archive, opened to be read; close it by leaving a `with` block."""
    return open(file, "rb") if isinstance(file, Path) else _OpenMember(file)


def read_text(file: File) -> str:
    """The whole of a small UTF-8 text file.

    Raises:
        OSError, ValueError: it cannot be read, is larger than 64 MiB, or is no text.
    """
    with open_file(file) as opened:
        content = opened.read(TEXT_BYTES + 1)
    if len(content) > TEXT_BYTES:
        raise ValueError(f"more than {TEXT_BYTES / 2**20:.0f} MiB")
    return content.decode("utf-8-sig")


class _OpenMember(io.BufferedIOBase):
    """A member opened to be read; what zipfile raises becomes a refusal."""

    mode = "rb"

    def __init__(self, member: Member) -> None:
        self.name = member.member
        self._archive = zipfile.ZipFile(member.archive)
        try:
            self._opened = self._archive.open(member.member)
        except (KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as cause:
            self._archive.close()
            raise _damaged(self.name, cause) from cause

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return self._opened.read(size)
        except (EOFError, zipfile.BadZipFile, zlib.error) as cause:
            raise _damaged(self.name, cause) from cause

    def close(self) -> None:
        if not self.closed:
            self._opened.close()
            self._archive.close()
        super().close()


def _danger(member: zipfile.ZipInfo) -> str:
    """Why a member must not be trusted, or nothing."""
    name = member.filename.replace("\\", "/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.startswith("/") or name[1:2] == ":":
        return "has an absolute name"
    if ".." in PurePosixPath(name).parts:
        return "climbs out of its folder (..)"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.file_size > SMALL and member.file_size > RATIO * max(member.compress_size, 1):
        return f"grows {member.file_size / max(member.compress_size, 1):.0f} times, at most {RATIO} are taken"
    return ""


def _damaged(name: str, cause: Exception) -> ScanRefused:
    return ScanRefused("E_CRC", f"its member {name} is damaged ({cause})", COPY_AGAIN)


def find(names: Iterable[str], ending: str) -> str | None:
    """The one name that is ``ending`` or ends with `/` and ``ending``; the shortest if several do."""
    fitting = [name for name in names if name == ending or name.endswith("/" + ending)]
    return min(fitting, key=len) if fitting else None
