"""Files from elsewhere: fetched or unpacked under a temporary name, checked, then renamed."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from http.client import HTTPException
from itertools import count
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

BLOCK = 1 << 20


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def git_blob(path: Path) -> str:
    """The name git gives to the content of a file: SHA-1 of ``blob <bytes>\\0`` and the content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        for block in _blocks(file):
            digest.update(block)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_lf(path: Path) -> str:
    """SHA-256 of a text file as it is with Unix line ends."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


CHECKSUMS: dict[str, Callable[[Path], str]] = {
    "git_blob": git_blob,
    "sha256": sha256,
    "sha256_lf": sha256_lf,
}


def count_lines(path: Path) -> int:
    """Lines of a file; the last one counts with or without a line break."""
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        for block in _blocks(file):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")


def problem(path: Path, expected: dict[str, Any]) -> str | None:
    """Why a file is not the published one, or None.

    Args:
        expected: ``lines`` (a number, or the least and the most) and a checksum of
            :data:`CHECKSUMS`, as far as they are known.
    """
    if not path.is_file():
        return "is missing"
    if path.stat().st_size == 0:
        return "is empty"
    if "lines" in expected:
        wanted = expected["lines"]
        least, most = wanted if isinstance(wanted, list) else (wanted, wanted)
        if not least <= (found := count_lines(path)) <= most:
            return f"has {found} lines instead of {' to '.join(map(str, sorted({least, most})))}"
    for name, checksum in CHECKSUMS.items():
        if name in expected and checksum(path) != expected[name]:
            return "is another file than the published one (wrong checksum)"
    return None


def accept(part: Path, target: Path, expected: dict[str, Any]) -> None:
    """Give a complete file its name, or delete it; what was there is kept beside it."""
    if why := problem(part, expected):
        part.unlink(missing_ok=True)
        raise OSError(f"{target.name} as fetched {why}")
    if target.is_file() and target.stat().st_size:
        aside = (target.with_name(f"{target.name}.old{n or ''}") for n in count())
        kept = next(path for path in aside if not path.exists())
        os.replace(target, kept)
        print(f"{target} was another file, and is kept as {kept.name}", flush=True)
    os.replace(part, target)


UNREADABLE: tuple[type[Exception], ...] = (
    *(KeyError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError),
    *(RuntimeError, NotImplementedError),  # a password, a method that is not known
)
SCHEMES = ("http", "https")
LARGEST = 100
"""How many times as large as its archive an unpacked file may be; text is up to about 20."""


def fetch(urls: Sequence[str], target: Path, expected: dict[str, Any], local: bool = False) -> None:
    """Fetch a file from the first of ``urls`` that has it as expected.

    Args:
        local: take addresses of this machine's files (``file://``) as well.

    Raises:
        OSError: none has; the message says why, for each.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    reasons = []
    for url in urls:
        try:
            if urlsplit(url).scheme not in (*SCHEMES, *(["file"] if local else [])):
                raise OSError("no address of http or https")
            request = Request(url, headers={"User-Agent": "prefix-tuning"})
            with urlopen(request, timeout=60) as answer, part.open("wb") as file:
                size = int(answer.headers.get("Content-Length") or 0)
                with tqdm(total=size or None, unit="B", unit_scale=True, desc=target.name) as bar:
                    for block in _blocks(answer):
                        file.write(block)
                        bar.update(len(block))
            if size and part.stat().st_size != size:
                raise OSError(f"cut off after {part.stat().st_size} of {size} bytes")
            return accept(part, target, expected)
        except (OSError, HTTPException, ValueError) as error:  # ValueError: no URL
            reasons.append(f"{url}: {error}" if "://" not in url else f"{_host(url)}: {error}")
    raise OSError("; ".join(dict.fromkeys(reasons)))


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc or url
    except ValueError:
        return url


def unpack(archive: Path, member: str, target: Path, expected: dict[str, Any]) -> None:
    """Write one member of a zip or tar file to ``target``, if it is as expected.

    Raises:
        OSError: the archive is damaged, or has no such member, or another one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        with ExitStack() as stack:
            content: IO[bytes] | None
            if archive.suffix == ".zip":
                pack = stack.enter_context(zipfile.ZipFile(archive))
                size = pack.getinfo(member).file_size
                content = pack.open(member)
            else:
                tar = stack.enter_context(tarfile.open(archive))
                size = tar.getmember(member).size
                content = tar.extractfile(member)
            if size > LARGEST * archive.stat().st_size:
                raise KeyError(f"{size} bytes, more than {LARGEST} times the archive")
            if content is None:
                raise KeyError(f"{member} is a folder")
            with content, part.open("wb") as file:
                shutil.copyfileobj(content, file, BLOCK)
    except UNREADABLE as error:
        raise OSError(f"{archive.name}: {member} cannot be unpacked ({error})") from error
    accept(part, target, expected)
