"""Fetch the papers' data sets, check them, and put them where the project looks for them.

``data/sources.json`` says for each data set where it comes from, which files it has, and how each
file is checked. Nothing unchecked gets its final name: a download that was cut off is fetched again
by the same command, and files that are there and right are left alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tqdm import tqdm

from data.download.convert import CONVERSIONS
from data.download.fetch import accept, fetch, problem, unpack
from data.download.sources import read_sources
from prefix_tuning.errors import UserError, run_command

DATA = Path(__file__).resolve().parents[1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="all, or names that --list prints")
    add("--to", type=Path, default=DATA, help="folder of all data sets (default: %(default)s)")
    add("--check", action="store_true", help="fetch nothing, only check the files that are there")
    add("--list", action="store_true", help="print what there is")
    add("--sources", type=Path, default=DATA / "sources.json", help="where everything comes from")
    add("--local_files", action="store_true", help="fetch from file:// addresses as well")
    return parser


def _one_line(text: str) -> str:
    return " ".join(text.split())


def from_hub(hub: dict[str, Any], folder: Path) -> None:
    """Write ``<split>.source`` and ``<split>.target``, one text a line, from the Hugging Face hub.

    Pairs with an empty half are left out: there is nothing to learn from them or to score.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    folder.mkdir(parents=True, exist_ok=True)
    for ours, theirs in hub["splits"].items():
        try:
            rows = load_dataset(hub["name"], hub["config"], split=theirs)
        except (OSError, ValueError, DatasetsError) as error:
            raise OSError(f"hub, {hub['name']}: {_one_line(str(error))}") from error
        for column in (hub["source"], hub["target"]):
            if column not in rows.column_names or not all(isinstance(v, str) for v in rows[column]):
                raise OSError(f"hub, {hub['name']}: {theirs} has no column of texts {column!r}")
        if len(rows) != hub["records"][theirs]:
            wanted = hub["records"][theirs]
            raise OSError(f"hub, {hub['name']}: {len(rows)} records of {theirs}, not {wanted}")
        paths = [folder / f"{ours}.{kind}" for kind in ("source", "target")]
        parts = [path.with_name(path.name + ".part") for path in paths]
        with ExitStack() as stack:
            files = [stack.enter_context(part.open("w", encoding="utf-8")) for part in parts]
            for row in tqdm(rows, desc=ours, unit=" pairs"):
                pair = _one_line(row[hub["source"]]), _one_line(row[hub["target"]])
                if all(pair):
                    for file, text in zip(files, pair, strict=True):
                        file.write(text + "\n")
        for part, path in zip(parts, paths, strict=True):
            os.replace(part, path)


def wrong_files(dataset: dict[str, Any], folder: Path) -> dict[str, str]:
    """Files of a data set that are not in place -> why."""
    found = ((name, problem(folder / name, rule)) for name, rule in dataset["files"].items())
    return {name: why for name, why in found if why}


def _fetch_files(dataset: dict[str, Any], folder: Path, local: bool) -> None:
    wrong = wrong_files(dataset, folder)
    for name in list(wrong):
        rule = dataset["files"][name]
        originals = rule.get("made_from", [])
        if originals and not wrong.keys() & set(originals):
            part = folder / f"{name}.part"
            _, convert = CONVERSIONS[rule["made_by"]]
            part.write_bytes(convert([folder / original for original in originals]))
            accept(part, folder / name, rule)
        elif "urls" in rule:
            fetch(rule["urls"], folder / name, rule, local)
        else:
            continue  # unpacked, or fetched by hand
        del wrong[name]


def _fetch_archives(dataset: dict[str, Any], folder: Path, local: bool) -> None:
    for archive in dataset.get("archives", []):
        if not set(archive["gives"]) & set(wrong_files(dataset, folder)):
            continue
        target = folder / Path(urlsplit(archive["urls"][0]).path).name
        fetch(archive["urls"], target, archive, local)
        try:
            for name in archive["gives"]:
                member = archive.get("root", "") + name
                unpack(target, member, folder / name, dataset["files"][name])
        finally:
            target.unlink()


def _origin(dataset: dict[str, Any], name: str) -> str | None:
    """Where a file can be had."""
    rule = dataset["files"][name]
    if "urls" in rule:
        return rule["urls"][0]
    if "made_from" in rule:
        return _origin(dataset, rule["made_from"][0])
    for archive in dataset.get("archives", []):
        if name in archive["gives"]:
            return archive["urls"][0]
    return f"the hub's {dataset['hub']['name']}" if "hub" in dataset else None


def _by_hand(name: str, dataset: dict[str, Any], folder: Path, wrong: dict[str, str]) -> str:
    """One sentence: what is wrong with a data set, and what to put where."""
    first, why = next(iter(wrong.items()))
    others = f" (and {len(wrong) - 1} more, see --list)" if len(wrong) > 1 else ""
    origin = _origin(dataset, first)
    source = f", from {origin}" if origin else ""
    note = f"; {dataset['note']}" if "note" in dataset else ""
    return f"{name}: {folder / first} {why}{others}: put the published file there{source}{note}"


def get(
    name: str, dataset: dict[str, Any], to: Path, check_only: bool = False, local: bool = False
) -> None:
    """Bring a data set into ``to``, or only check it.

    Raises:
        UserError: it is not complete afterwards; the message says what to put where.
    """
    folder = to / dataset["folder"]
    reason = None
    if not check_only and wrong_files(dataset, folder):
        try:
            _fetch_files(dataset, folder, local)
            _fetch_archives(dataset, folder, local)
        except OSError as error:
            reason = error
        if "hub" in dataset and wrong_files(dataset, folder):
            try:
                from_hub(dataset["hub"], folder)
            except OSError as error:
                reason = error
    if wrong := wrong_files(dataset, folder):
        tried = f" (tried: {_one_line(str(reason))})" if reason else ""
        raise UserError(_by_hand(name, dataset, folder, wrong) + tried)
    print(f"{name}: {len(dataset['files'])} files in {folder} are complete", flush=True)


def print_list(sources: dict[str, Any], to: Path) -> None:
    """A few lines per data set: name, size, licence, place, files."""
    for name, dataset in sources.items():
        size = f"about {dataset['mb']} MB" if "mb" in dataset else "by hand"
        state = "not complete" if wrong_files(dataset, to / dataset["folder"]) else "complete"
        print(f"{name}: {dataset['title']}; {size}; {dataset['licence']}")
        print(f"    {to / dataset['folder']} ({state}): {' '.join(dataset['files'])}")


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch, check or list what ``argv`` names."""
    args = _parser().parse_args(argv)
    sources = read_sources(args.sources)
    if args.list:
        return print_list(sources, args.to)
    names = list(sources) if "all" in args.names else args.names
    if unknown := [name for name in names if name not in sources]:
        raise UserError(f"{unknown[0]}: no such data set; there are {', '.join(sources)} and all")
    if not names:
        raise UserError("name a data set, or all; --list prints what there is")
    failed = []
    for name in names:
        try:
            get(name, sources[name], args.to, args.check, args.local_files)
        except UserError as error:
            if len(names) == 1:
                raise
            print(error, file=sys.stderr)
            failed.append(name)
    if failed:
        raise UserError(f"not complete: {', '.join(failed)}; the lines above say what to do")


if __name__ == "__main__":
    run_command(main)
