"""Fetching data sets, against a server of a few small files."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nltk
import pytest
from conftest import ROOT
from datasets import Dataset

from data.download import download_data
from data.download.convert import CONVERSIONS, e2e_test_set
from data.download.fetch import count_lines, git_blob, problem, sha256_lf, unpack
from evaluation.summarization import FOLDER, punkt
from gpt2.tasks import TASKS
from prefix_tuning.errors import UserError

KEYS = {"lines", "sha256", "sha256_lf", "git_blob", "urls", "made_from", "made_by"}
TEXT = b"one\ntwo\nthree\n"


class Served(dict[str, bytes]):
    """path -> content; ``cut``: paths whose content breaks off; ``asked``: what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.cut: set[str] = set()
        self.asked: list[str] = []
        self.url = ""


@pytest.fixture
def served() -> Iterator[Served]:
    files = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.asked.append(self.path)
            content = files.get(self.path)
            if content is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if self.path in files.cut else content)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    files.url = f"http://127.0.0.1:{server.server_port}"
    yield files
    server.shutdown()
    server.server_close()


def toy(served: Served, **rule: Any) -> dict[str, Any]:
    """A data set of one file that the server has."""
    served["/a.txt"] = TEXT
    files = {"a.txt": {"urls": [f"{served.url}/a.txt"], "lines": 3, **rule}}
    return {"title": "Toy", "licence": "none", "folder": "toy", "files": files}


def run(tmp_path: Path, dataset: dict[str, Any], *flags: str) -> None:
    sources = tmp_path / "sources.json"
    sources.write_text(json.dumps({"toy": dataset}), encoding="utf-8")
    names = [] if "--list" in flags else ["toy"]
    download_data.main([*names, "--to", str(tmp_path), "--sources", str(sources), *flags])


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once(
    tmp_path: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = toy(served, sha256=hashlib.sha256(TEXT).hexdigest())
    run(tmp_path, dataset)
    assert (tmp_path / "toy" / "a.txt").read_bytes() == TEXT
    assert names_in(tmp_path / "toy") == ["a.txt"]
    run(tmp_path, dataset)
    run(tmp_path, dataset, "--check")
    assert served.asked == ["/a.txt"]
    assert capsys.readouterr().out.count("1 files in") == 3


@pytest.mark.parametrize("rule", [{"sha256": "0" * 64}, {"git_blob": "0" * 40}, {"lines": 4}])
def test_another_file_than_expected_is_not_kept(
    tmp_path: Path, served: Served, rule: dict[str, Any]
) -> None:
    reason = "3 lines instead of 4" if "lines" in rule else "wrong checksum"
    with pytest.raises(UserError, match=rf"toy/a\.txt is missing: put .*{reason}"):
        run(tmp_path, toy(served, **rule))
    assert names_in(tmp_path / "toy") == []


def test_a_download_that_is_cut_off_is_made_again(tmp_path: Path, served: Served) -> None:
    dataset = toy(served)
    served.cut.add("/a.txt")
    with pytest.raises(UserError, match="cut off after 7 of 14 bytes"):
        run(tmp_path, dataset)
    assert names_in(tmp_path / "toy") == ["a.txt.part"]
    served.cut.clear()
    run(tmp_path, dataset)
    assert names_in(tmp_path / "toy") == ["a.txt"]


def test_another_file_that_was_there_is_kept(tmp_path: Path, served: Served) -> None:
    (tmp_path / "toy").mkdir()
    for mine in ("my own", "another"):
        (tmp_path / "toy" / "a.txt").write_text(mine)
        run(tmp_path, toy(served))
    assert names_in(tmp_path / "toy") == ["a.txt", "a.txt.old", "a.txt.old1"]
    assert (tmp_path / "toy" / "a.txt.old1").read_text() == "another"


def test_the_second_place_is_asked_if_the_first_fails(tmp_path: Path, served: Served) -> None:
    dataset = toy(served)
    dataset["files"]["a.txt"]["urls"].insert(0, f"{served.url}/gone")
    run(tmp_path, dataset)
    assert served.asked == ["/gone", "/a.txt"]


def test_without_a_network_the_message_says_what_to_put_where(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = {**toy(served), "note": "a licence is needed"}

    def no_network(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("data.download.fetch.urlopen", no_network)
    with pytest.raises(UserError) as error:
        run(tmp_path, dataset)
    assert str(error.value) == (
        f"toy: {tmp_path}/toy/a.txt is missing: put the published file there, from "
        f"{served.url}/a.txt; a licence is needed (tried: {served.url[7:]}: no network)"
    )
    (tmp_path / "toy" / "a.txt").write_bytes(TEXT)
    run(tmp_path, dataset)


def test_check_fetches_nothing_and_names_what_is_wrong(tmp_path: Path, served: Served) -> None:
    dataset = toy(served)
    (tmp_path / "toy").mkdir()
    file = tmp_path / "toy" / "a.txt"
    for content, message in ((b"", "is empty"), (b"one\ntwo", "has 2 lines instead of 3")):
        file.write_bytes(content)
        with pytest.raises(UserError, match=rf"a\.txt {message}"):
            run(tmp_path, dataset, "--check")
        assert file.read_bytes() == content
    assert served.asked == []


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("top/a.txt", content)
        archive.writestr("top/other.txt", b"unwanted")
    return buffer.getvalue()


def tarred(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("top/a.txt")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(("name", "pack"), [("x.zip", zipped), ("x.tar.gz", tarred)])
def test_archives(tmp_path: Path, served: Served, name: str, pack: Any) -> None:
    served[f"/{name}"] = pack(TEXT)
    dataset = toy(served)
    del dataset["files"]["a.txt"]["urls"]
    archive = {"urls": [f"{served.url}/{name}"], "root": "top/", "gives": ["a.txt"]}
    dataset["archives"] = [archive]
    run(tmp_path, dataset)
    assert names_in(tmp_path / "toy") == ["a.txt"]
    run(tmp_path, dataset)
    assert served.asked == [f"/{name}"]

    (tmp_path / "toy" / "a.txt").unlink()
    served[f"/{name}"] = pack(b"one\n")
    with pytest.raises(UserError, match="1 lines instead of 3"):
        run(tmp_path, dataset)
    served[f"/{name}"] = b"no archive at all, but some bytes"
    with pytest.raises(UserError, match="cannot be unpacked"):
        run(tmp_path, dataset)
    archive["sha256"] = "0" * 64
    with pytest.raises(UserError, match="wrong checksum"):
        run(tmp_path, dataset)
    assert names_in(tmp_path / "toy") == []


def test_punkt_is_put_where_the_splitter_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of the project, with an archive of this machine in the published layout."""
    dataset = download_data.read_sources(ROOT / "data" / "sources.json")["nltk"]
    packed = tmp_path / "punkt_tab.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for name in dataset["files"]:
            known = {"abbrev_types.txt": "dr\n", "collocations.tab": "e\tg\n"}
            archive.writestr(name, known.get(Path(name).name, "it\t1\n"))
        archive.writestr("punkt_tab/greek/abbrev_types.txt", "unwanted")
    dataset["archives"][0] |= {"urls": [packed.as_uri()], "git_blob": git_blob(packed)}
    run(tmp_path, dataset, "--local_files")
    monkeypatch.setattr(nltk.data, "path", [])
    assert FOLDER.relative_to(ROOT / "data") == Path("nltk_data")
    split = punkt(tmp_path / "nltk_data")
    assert split("Dr. Lee ate. It rained.") == ["Dr. Lee ate.", "It rained."]
    assert not (tmp_path / "nltk_data/tokenizers/punkt_tab/greek").exists()


def test_hub(tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Dataset.from_dict({"document": ["a\nb  c", "", "d"], "summary": ["x\u2028y", "y", "z"]})
    asked = []

    def load_dataset(name: str, config: str | None, split: str) -> Dataset:
        asked.append((name, config, split))
        return rows

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    dataset = toy(served)
    dataset["files"] = {"val.source": {"lines": [2, 3]}, "val.target": {"lines": [2, 3]}}
    dataset["hub"] = {
        "name": "some/set",
        "config": None,
        "records": {"validation": 3},
        "source": "document",
        "target": "summary",
        "splits": {"val": "validation"},
    }
    run(tmp_path, dataset)
    assert asked == [("some/set", None, "validation")]
    assert (tmp_path / "toy" / "val.source").read_text("utf-8") == "a b c\nd\n"
    assert (tmp_path / "toy" / "val.target").read_text("utf-8") == "x y\nz\n"

    (tmp_path / "toy" / "val.source").unlink()
    for wanted in (2, 4):
        dataset["hub"]["records"]["validation"] = wanted
        with pytest.raises(UserError, match=f"3 records of validation, not {wanted}"):
            run(tmp_path, dataset)
    dataset["hub"]["records"]["validation"] = 3
    for column, texts in (("title", ["a", "b", "c"]), ("summary", [None, "y", "z"])):
        dataset["hub"]["target"] = column
        rows = Dataset.from_dict({"document": ["a", "b", "c"], "summary": texts})
        with pytest.raises(UserError, match=f"validation has no column of texts '{column}'"):
            run(tmp_path, dataset)


def test_several_data_sets_are_tried_and_the_missing_ones_named(
    tmp_path: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = tmp_path / "sources.json"
    missing = {**toy(served), "folder": "other", "files": {"b.txt": {}}}
    sources.write_text(json.dumps({"first": missing, "toy": toy(served)}), encoding="utf-8")
    arguments = ["--to", str(tmp_path), "--sources", str(sources)]
    with pytest.raises(UserError, match="not complete: first;"):
        download_data.main(["all", *arguments])
    assert f"first: {tmp_path}/other/b.txt is missing" in capsys.readouterr().err
    assert (tmp_path / "toy" / "a.txt").is_file()
    download_data.main(["--list", *arguments])
    output = capsys.readouterr().out
    assert "first: Toy; by hand; none" in output
    assert f"{tmp_path}/toy (complete): a.txt" in output


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="e3e: no such data set; there are e2e, webnlg"):
        download_data.main(["e3e"])
    with pytest.raises(UserError, match="name a data set"):
        download_data.main([])
    with pytest.raises(UserError, match=r"--sources .*not readable JSON"):
        download_data.main(["e2e", "--sources", str(tmp_path / "none.json")])


def test_as_a_program(tmp_path: Path) -> None:
    script = str(ROOT / "data" / "download" / "download_data.py")
    command = [sys.executable, script, "conll2003", "--to", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "scripts")
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: conll2003: {tmp_path}/CoNLL03/train.txt is missing")
    assert result.stderr.count("\n") == 1


def test_checksums_by_other_means(tmp_path: Path) -> None:
    """git's own command, and the SHA-256 of the same text with Unix line ends."""
    file = tmp_path / "x"
    file.write_bytes(b"a\r\nb\r\n")
    # Unlike `git hash-object FILE`, standard input is hashed as it is, whatever autocrlf says.
    with file.open("rb") as content:
        command = ["git", "hash-object", "--stdin"]
        assert git_blob(file) == subprocess.check_output(command, stdin=content, text=True).strip()
    assert sha256_lf(file) == hashlib.sha256(b"a\nb\n").hexdigest()
    for content, lines in ((b"", 0), (b"a", 1), (b"a\n", 1), (b"a\n\nb", 3)):
        file.write_bytes(content)
        assert count_lines(file) == lines


def test_sources_agree_with_the_project() -> None:
    """Files are where the project reads them, and every one says where it can be had."""
    sources = download_data.read_sources(ROOT / "data" / "sources.json")
    for name, mode in (("e2e", "data2text"), ("webnlg", "webnlg"), ("dart", "triples")):
        folder = ROOT / "data" / sources[name]["folder"]
        ours = {folder / file for file in sources[name]["files"]}
        assert set(TASKS[mode].files.values()) <= ours
    for dataset in sources.values():
        given = [name for a in dataset.get("archives", []) for name in a["gives"]]
        assert set(given) <= set(dataset["files"])
        assert len(set(given)) == len(given)
        for name, rule in dataset["files"].items():
            assert set(rule) <= KEYS
            assert set(rule.get("made_from", [])) <= set(dataset["files"])
            assert rule.get("made_by", "mrpc_dev") in CONVERSIONS
            for key, digits in (("sha256", 64), ("sha256_lf", 64), ("git_blob", 40)):
                assert len(rule.get(key, digits * "x")) == digits
            assert (
                rule.keys() & {"urls", "made_by"}
                or name in given
                or dataset.keys() & {"hub", "note"}
            )
        for url in [u for r in dataset["files"].values() for u in r.get("urls", [])]:
            assert url.startswith("https://")


@pytest.mark.parametrize(
    ("name", "folder"),
    [("e2e", "e2e"), ("webnlg", "webnlg_2017"), ("dart", "dart"), ("wnut17", "ner/wnut17")],
)
def test_real_files_pass(shared: Path, name: str, folder: str) -> None:
    files = download_data.read_sources(ROOT / "data" / "sources.json")[name]["files"]
    checked = [f for f in files if (shared / "data" / folder / f).is_file()]
    assert len(checked) == {"e2e": 4, "webnlg": 3, "dart": 1, "wnut17": 3}[name]
    for file in checked:
        assert problem(shared / "data" / folder / file, files[file]) is None


CSV = """\ufeffmr,ref
"name[The Mill], eatType[pub], priceRange[£20-25], familyFriendly[no]","It's a ""pub"", isn't it?
Prices:  £20-25."
"name[Café A], customer rating[5 out of 5], near[B, C]",A 5-star family-friendly café..
name[X],"They can't, cannot and won't; that's 'X'."
"""
LINES = """\
name : The Mill | Type : pub | price : £ 20 - 25 | family friendly : no||\
It 's a "pub" , is n't it ? Prices : £ 20 - 25 . 
name : Café A | customer rating : 5 out of 5 | near : B , C||A 5-star family - friendly café .. 
name : X||They ca n't , can not and wo n't ; that 's ' X ' . 
"""


def test_e2e_csv_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(CSV, encoding="utf-8")
    assert e2e_test_set([path]).decode("utf-8") == LINES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", 'row 1: expected the columns "mr" and "ref"'),
        ("mr,ref\nname[X],\n", 'row 1: expected the columns "mr" and "ref"'),
        ("mr,ref\nname[X],t\nkind[Y],t\n", "row 2: .* is no meaning representation"),
        ("mr,ref\nX,t\n", "row 1: .* is no meaning representation"),
    ],
)
def test_e2e_csv_mistakes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        e2e_test_set([path])


def test_e2e_csv_of_the_challenge(shared: Path) -> None:
    """All 4,693 lines of the paper's file, byte for byte."""
    folder = shared / "data" / "e2e"
    converted = e2e_test_set([folder / "testset_w_refs.csv"])
    assert converted == (folder / "src1_test.txt").read_bytes()


def test_e2e_test_set_is_made_from_the_csv_without_a_network(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = download_data.read_sources(ROOT / "data" / "sources.json")["e2e"]
    csv = shared / "data" / "e2e" / "testset_w_refs.csv"
    (tmp_path / "e2e_data").mkdir()
    (tmp_path / "e2e_data" / csv.name).write_bytes(csv.read_bytes())

    def no_network(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("data.download.fetch.urlopen", no_network)
    with pytest.raises(UserError, match=r"src1_train\.txt is missing \(and 1 more"):
        download_data.get("e2e", dataset, tmp_path)
    assert not problem(tmp_path / "e2e_data" / "src1_test.txt", dataset["files"]["src1_test.txt"])


def test_mrpc_is_split_as_glue_does(tmp_path: Path, served: Served) -> None:
    header, rows = (
        "Quality\t#1 ID\t#2 ID\ta\tb",
        ["1\t7\t8\tx\ty", "0\t8\t7\tu\tv", "1\t9\t1\tp\tq"],
    )
    served["/all"] = ("\ufeff" + "\r\n".join([header, *rows, "", ""])).encode()
    served["/ids"] = b"8\t7\n"
    files = {name: {"urls": [f"{served.url}/{name}"]} for name in ("all", "ids")}
    files["train"] = {"made_from": ["all", "ids"], "made_by": "mrpc_train", "lines": 3}
    files["dev"] = {"made_from": ["all", "ids"], "made_by": "mrpc_dev", "lines": 2}
    files["test"] = {"made_from": ["all"], "made_by": "mrpc_test_set", "lines": 4}
    run(tmp_path, {**toy(served), "files": files})
    folder = tmp_path / "toy"
    assert (folder / "train").read_text().split("\n") == [header, rows[0], rows[2], ""]
    assert (folder / "dev").read_text().split("\n") == [header, rows[1], ""]
    assert (folder / "test").read_text().split("\n") == [header, *rows, ""]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folder": "../x"}, "folder has another form .*, inside its folder"),
        ({"folder": "/x"}, "folder has another form"),
        ({"files": {"../a.txt": {}}}, r"the file \.\./a\.txt is not inside"),
        ({"files": []}, "files has another form"),
        ({"files": {"a.txt": []}}, r"a\.txt: expected an object"),
        ({"files": {"a.txt": {"urls": "http://x"}}}, "urls has another form"),
        ({"files": {"a.txt": {"made_from": ["b"], "made_by": "mrpc_dev"}}}, "no file b"),
        ({"files": {"a.txt": {"lines": "3"}}}, "lines has another form"),
        ({"archives": [{"urls": ["http://x/a.zip"], "gives": ["../a.txt"]}]}, "gives has another"),
        ({"archives": 3}, "archives is no list"),
        ({"hub": {}}, "hub: splits is missing"),
        ({"title": None}, "title has another form"),
        ({"notes": "x"}, "notes is no field here; there are title"),
        ({"files": {"a.txt": {"url": ["http://x"]}}}, "url is no field here"),
        ({"files": {"b": {}, "a": {"made_from": ["b"], "made_by": "mrpc_dev"}}}, "from 2, not 1"),
        ({"files": {"a": {"made_from": ["a"], "made_by": "e2e_test_set"}}}, "is made itself"),
        ({"archives": [{"urls": ["http://[x/a.zip"], "gives": ["a.txt"]}]}, "urls has another"),
        ({"hub": {"splits": {}, "records": {}}}, "hub: config is missing"),
    ],
)
def test_sources_of_another_shape(
    tmp_path: Path, served: Served, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        run(tmp_path, {**toy(served), **change})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "toy").exists()


def test_files_of_this_machine_are_taken_when_asked_for(tmp_path: Path, served: Served) -> None:
    (tmp_path / "mine.txt").write_bytes(TEXT)
    for address in ((tmp_path / "mine.txt").as_uri(), "http://[x", "nothing", "ftp://x/a"):
        with pytest.raises(UserError, match=r"toy/a\.txt is missing"):
            run(tmp_path, toy(served, urls=[address]))
    run(tmp_path, toy(served, urls=[(tmp_path / "mine.txt").as_uri()]), "--local_files")
    assert (tmp_path / "toy" / "a.txt").read_bytes() == TEXT


def test_an_archive_that_grows_is_not_unpacked(tmp_path: Path) -> None:
    packed = tmp_path / "a.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", b"0" * 3_000_000)
    with pytest.raises(OSError, match="more than 100 times the archive"):
        unpack(packed, "a.txt", tmp_path / "a.txt", {})
    assert names_in(tmp_path) == ["a.zip"]
