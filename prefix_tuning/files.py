"""Reading and writing text files: whole or not, and with a sentence for whatever is wrong.

Every reader of the project stands on these. A byte order mark is dropped. Only ``\\n`` and
``\\r\\n`` end a line, and ``\\r`` where a file has no other (``str.splitlines`` would also cut at
U+2028 and seven other characters, which occur inside web text). Half a surrogate pair, which JSON
allows and UTF-8 does not, becomes U+FFFD.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from prefix_tuning.errors import UserError, refused_write

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(path: Path) -> str:
    """A UTF-8 file as a string, without byte order mark and with ``\\n`` for ``\\r\\n``.

    In a file without any ``\\n`` each ``\\r`` ends a line, as spreadsheets on a Mac write it; in
    others it is a character of the text.

    Raises:
        UserError: there is no such file, it cannot be read, or it is not UTF-8 (naming the line).
    """
    text = read_raw(path)
    return text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")


def read_raw(path: Path) -> str:
    """:func:`read_text` with the line ends of the file, which may stand inside a cell of CSV."""
    if path.is_dir():
        raise UserError(f"{path} is a directory: give a file")
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; README.md says where data goes") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give another file") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n" if b"\n" in raw else b"\r", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8 text (byte 0x{raw[error.start]:02x}); convert the "
            "file, for example with iconv -f LATIN1 -t UTF-8"
        ) from error


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Every line, blank ones included, and where it stands: ``"FILE, line 3"``."""
    text = read_text(path).removesuffix("\n")
    if text:
        for number, line in enumerate(text.split("\n"), start=1):
            yield line, f"{path}, line {number}"


def parse_json(text: str, where: str) -> Any:
    """The value that ``text`` writes down.

    Raises:
        UserError: it is not JSON, nests too deeply, has a number too long to be read, or an object
            has a name twice, of which nobody knows which one is meant.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            raise UserError(f"{where}: {first_twice(n for n, _ in pairs)!r} comes twice: keep one")
        return value

    try:
        value = json.loads(text, object_pairs_hook=once)
    except UserError:
        raise
    except json.JSONDecodeError as error:
        at = "" if ", line " in where else f", line {error.lineno}"
        raise UserError(f"{where}{at}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise UserError(f"{where}: JSON that nests too deeply to be read") from error
    except ValueError as error:  # an integer of thousands of digits
        raise UserError(f"{where}: a number with too many digits to be read") from error
    return without_surrogates(value) if _ESCAPED_SURROGATE.search(text) else value


def first_twice(names: Iterable[str]) -> str | None:
    """The first name that stands there more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def without_surrogates(value: Any) -> Any:
    """A value of JSON, half a surrogate pair in its texts being U+FFFD: no tokenizer takes one."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(k): without_surrogates(v) for k, v in value.items()}
    return value


def read_json(path: Path) -> Any:
    """The value of a JSON file, or a :class:`UserError` naming the line where it ends being one."""
    return parse_json(read_text(path), str(path))


def read_json_object(path: Path) -> dict[str, Any]:
    """:func:`read_json` of a file that must hold an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object: copy the file again")
    return value


def read_json_lines(path: Path) -> Iterator[tuple[Any, str]]:
    """The values of a JSONL file and where they stand; blank lines are skipped."""
    for line, where in numbered_lines(path):
        if line.strip():
            yield parse_json(line, where), where


def read_csv(path: Path, delimiter: str = ",") -> Iterator[tuple[list[str], str]]:
    """The rows of a table, header first, and where they begin; empty rows are skipped.

    Raises:
        UserError: a row has not as many cells as the header, a quote is never closed, or two
            columns have one name.
    """
    rows, width = _parse_csv(path, delimiter), None
    for row, line in rows:
        if width is None:
            width, twice = len(row), first_twice(row)
            if twice is not None:
                raise UserError(
                    f"{path}, line {line}: {twice!r} comes {row.count(twice)} times: give each "
                    "one name"
                )
        if len(row) != width:
            raise UserError(f"{path}, line {line}: {len(row)} columns, the header has {width}")
        yield row, f"{path}, line {line}"


def _parse_csv(path: Path, delimiter: str) -> list[tuple[list[str], int]]:
    # The limit of 128 KiB a cell is a setting of the whole process, which long documents exceed
    # and which other code may rely on: hence all rows at once, and the old limit after them.
    limit = csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(read_raw(path), newline=""), delimiter=delimiter, strict=True)
    rows, line = [], 1  # a row may span several lines
    try:
        for row in reader:
            if row:
                rows.append((row, line))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: not a table ({error})") from error
    finally:
        csv.field_size_limit(limit)
    return rows


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside ``path`` that takes its place when it is complete and on the disk.

    A reader sees the old file or the new one, never a part; so does whoever looks after a kill or
    a power cut. Nothing is left of a file that cannot be written. Others may read it, if the user's
    umask lets them: some libraries write files that only their owner may read.

    Raises:
        OSError: the system refuses, whichever library wrote; it names ``path``.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        temporary.chmod(usual_mode())
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = refused_write(error)
        if reason is None or isinstance(error, OSError):
            raise
        raise OSError(errno.ENOSPC, reason, str(path)) from error


def usual_mode() -> int:
    """The permissions of a file that is simply opened for writing."""
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask


def let_read(folder: Path) -> None:
    """Give the tensor files of a folder, which safetensors keeps private, the usual permissions."""
    for path in folder.rglob("*.safetensors"):
        path.chmod(usual_mode())


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8", newline="\n")


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    """Write one line each, making the folder; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{line}\n" for line in lines))
    return path


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")
