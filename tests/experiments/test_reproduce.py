"""Tables from experiments' files to results: planned, run, killed, continued, failed."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from conftest import ROOT
from filelock import FileLock, Timeout

from experiments import estimate, pool, reproduce, scales, spec, toy_data, worker
from experiments import table as table_of
from experiments.launchers import LAUNCHERS
from experiments.launchers import gpt2 as gpt2_tables
from experiments.launchers.base import JOB, RUN, SPLITS, STEPS, Step, parameters
from experiments.launchers.seq2seq import FOLDERS
from gpt2 import launch_flags, train_e2e
from gpt2.tasks import TASKS, read_records
from gpt2.train_request import parse
from harness.flags import command as as_words
from harness.report import Sizes
from prefix_tuning.errors import UserError
from prefix_tuning.files import write_json, write_lines
from ptuning_v2.arguments import get_args
from seq2seq import arguments as seq2seq_arguments
from seq2seq import train_bart

GPT2, SEQ2SEQ, PTUNING = LAUNCHERS.values()
TABLES = spec.names()
SCALES = scales.read()

# In the place of worker.py: a result at once, or what the row's name asks for.
WORKER = """
import json, os, pathlib, sys, time
job = json.loads((pathlib.Path(sys.argv[1]) / "job.json").read_text())
print("gpu", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
if job["row"] == "P=5":
    sys.exit("error: no such luck")
if job["row"] == "P=10":
    os.kill(os.getpid(), 9)
keys = ("settings", "seed", "steps", "n_inputs")
result = {key: job[key] for key in keys} | {"scores": {"test": {"BLEU": 1.5}}, "missing": {}}
result |= {"device": "none", "versions": {"torch": "2"}}
result |= {"seconds": {"train": 6.0, "test": 2.0}, "resumed": False, "disk_mb": 3.0}
pathlib.Path(job["result"]).write_text(json.dumps(result))
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder, with runs that take no time."""
    path = tmp_path / "worker.py"
    path.write_text(WORKER, encoding="utf-8")
    monkeypatch.setattr(pool, "WORKER", path)
    return tmp_path / "results"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def results_of(folder: Path) -> list[Path]:
    """The results of finished runs."""
    return [p for p in folder.glob("*/*/*/seed*.json") if not p.name.endswith(".failed.json")]


# --- whole runs ---------------------------------------------------------------------------------


def test_a_table_that_is_killed_in_the_middle(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was finished is not repeated, what was not is finished."""
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without Java
    results = tmp_path / "results"
    argv = ["small_e2e", "P=5", "--scale", "tiny", "--seeds", "1", "2"]
    argv += ["--model_name_or_path", str(tiny_folder), "--results_dir", str(results)]
    argv += ["--steps", "2", "--keep_checkpoints", "no"]
    first = subprocess.Popen(
        [sys.executable, str(ROOT / "experiments" / "reproduce.py"), *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not results_of(results):
            assert first.poll() is None
            time.sleep(0.05)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    before = {path: path.stat().st_mtime_ns for path in results_of(results)}
    assert len(before) == 1
    reproduce.main(argv)
    after = results_of(results)
    assert len(after) == 2
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())

    result = read(results / "tiny" / "small_e2e" / "P=5" / "seed2.json")
    assert result["settings"]["flags"]["preseqlen"] == 5
    assert result["settings"]["flags"]["seed"] == 2
    # Keys and values of 2 layers, 5 slots of 32 units each.
    assert result["parameters"]["stored"] == 2 * 2 * 5 * 32
    assert result["seconds"].keys() == {"train", "test"}
    assert "Java" in result["missing"]["test"]["METEOR"]
    assert result["versions"]["torch"]
    assert result["peak_memory"]["process_mb"] > 100
    folder = results / "tiny" / "small_e2e" / "P=5" / "seed2"
    texts = next(folder.rglob("run_test_beam")).read_text("utf-8").splitlines()
    assert len(texts) == 6  # the inputs of the scale
    weights = [path.relative_to(folder).parts for path in folder.rglob("*.safetensors")]
    assert weights
    assert all("export" in parts for parts in weights)


def run_here(job: pool.Job, settings: dict[str, Any], *_: Any) -> Any:
    """As ``pool.spawn``, in this process, where torch is imported already."""
    job.folder.mkdir(parents=True)
    write_json(job.folder / JOB, settings)
    worker.main([str(job.folder)])
    return SimpleNamespace(poll=lambda: 0, returncode=0)


@pytest.mark.parametrize(
    ("table", "row", "columns"),
    [
        ("xsum", "prefix-2", ["ROUGE-1", "ROUGE-2", "ROUGE-L"]),
        ("ptuning_superglue", "rte_bert", ["RTE"]),
        ("recipes", "lora", ["BLEU", "ROUGE-L"]),  # a launcher whose row is decoded otherwise
    ],
)
def test_whole_runs_of_the_other_launchers(
    table: str, row: str, columns: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained, decoded and scored, and what was scored stands in the table, of all its splits."""
    monkeypatch.setattr(pool, "spawn", run_here)
    results = ["--scale", "tiny", "--results_dir", str(tmp_path)]
    reproduce.main([table, row, "--seeds", "11", *results])
    [path] = results_of(tmp_path)
    scores, sizes = read(path)["scores"], read(path)["parameters"]
    assert 0 < sizes["trained"] < sizes["base"]
    experiment = spec.read(table)
    made = table_of.make(experiment, scales.read()["tiny"], tmp_path)
    splits = list(dict.fromkeys(experiment.splits))
    assert len(made) == len(splits) == len(scores)
    for split, of_split in zip(splits, made, strict=True):
        cells = [line.cells for line in of_split.lines if line.source == "ours"]
        for column in columns:
            values = [cell[column].value for cell in cells if cell[column].value is not None]
            assert values == [scores[split][column]]
            assert 0 <= values[0] <= 100


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nothing"], "TABLE nothing"),
        (["e2e", "prefixx"], "ROW prefixx"),
        (["e2e", "prefix-large"], "ROW prefix-large: left out at --scale small, it is of gpt2-l"),
        (["e2e", "--scale", "large"], "--scale large"),
        (["e2e", "--jobs", "0"], "--jobs 0"),
        (["e2e", "--seeds", "-1"], "--seeds -1: must be from 0"),
        (["e2e", "--gpus", "a,b"], "--gpus a,b"),
        (["e2e", "--data_dir", "/nowhere/at/all"], "--data_dir /nowhere/at/all"),
        (["small_e2e", "--scale", "paper"], "meant for tiny or small"),
        (["e2e", "--scale", "study"], "meant for tiny or small or paper"),
    ],
)
def test_mistakes(argv: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        reproduce.main([*argv, "--results_dir", str(tmp_path)])


# --- planning and failures ------------------------------------------------------------------------


def test_failures_are_recorded_and_the_others_go_on(
    stub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["small_e2e", "P=1", "P=5", "P=10", "P=20", "--scale", "tiny"]
    argv += ["--results_dir", str(stub)]
    with pytest.raises(UserError, match="2 of 4 runs failed"):
        reproduce.main([*argv, "--gpus", "3,1"])
    folder = stub / "tiny" / "small_e2e"
    failure = read(folder / "P=5" / "seed101.failed.json")
    assert failure["reason"] == "no such luck"
    assert failure["status"] == 1
    assert "SIGKILL" in read(folder / "P=10" / "seed101.failed.json")["reason"]
    assert {path.parent.name for path in results_of(stub)} == {"P=1", "P=20"}
    seen = {(folder / row / "seed101" / "log.txt").read_text() for row in ("P=1", "P=5")}
    assert seen == {"gpu 3\n", "gpu 1\nerror: no such luck\n"}
    capsys.readouterr()
    with pytest.raises(UserError, match="2 of 2 runs failed"):  # only these are tried again
        reproduce.main(argv)
    assert "4 runs, 2 of them done" in capsys.readouterr().out


def test_a_run_gets_its_share_of_the_processors_and_forgets_its_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, str]] = []
    monkeypatch.setattr(pool.subprocess, "Popen", lambda _, **more: started.append(more["env"]))
    monkeypatch.setattr(pool.os, "cpu_count", lambda: 8)
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    job: Any = pool.Job(SimpleNamespace(), tmp_path / "seed1")  # type: ignore[arg-type]
    write_json(job.failure, {"reason": "the disk was full"})
    job.folder.mkdir()
    job.log.write_text("what was said before", encoding="utf-8")
    for gpu, jobs in (("1", 3), (None, 20)):
        pool.spawn(job, {}, gpu, jobs)
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    assert [tuple(map(env.get, names)) for env in started] == [("2", "1"), ("1", None)]
    assert not job.failure.exists()
    assert job.log.read_text("utf-8") == "what was said before"
    assert pool.slots(3, "0, 2") == ["0", "2", "0"]
    assert (pool.slots(None, "0,2"), pool.slots(2, None)) == (["0", "2"], [None, None])


@pytest.mark.parametrize("table", ["e2e", "low_data", "xsum", "ptuning_superglue"])
def test_the_command_of_a_run_makes_it_anywhere(table: str, tmp_path: Path) -> None:
    """Read again, it asks for the same run; it names no folder of this machine."""

    def jobs(*argv: str) -> list[pool.Job]:
        return reproduce.make_jobs(reproduce._parser().parse_args(argv))

    (more := tmp_path / "FOLDER").mkdir()
    for scale, *flags in (
        ("tiny",),
        ("tiny", "--steps", "3", "--inputs", "5", "--model_name_or_path", str(more)),
    ):
        job = jobs(table, "--scale", scale, "--results_dir", str(tmp_path), *flags)[-1]
        assert str(tmp_path) not in job.command
        again = jobs(*shlex.split(job.command)[1:], "--results_dir", str(tmp_path))
        (same,) = [other for other in again if other.folder == job.folder]
        expected = dict(job.run.settings)
        if flags:
            expected["model"] = "FOLDER"
        assert same.run.settings == expected
    job = jobs("small_e2e", "P=1", "--data_dir", str(more))[0]
    assert job.command.endswith(" --data_dir FOLDER")


def test_the_time_is_up(stub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What runs is ended and no failure; the same command goes on. Several tables have commas."""
    stub.parent.joinpath("worker.py").write_text("import time; time.sleep(60)", encoding="utf-8")
    argv = ["full_e2e,full_webnlg", "prefix", "--scale", "tiny", "--results_dir", str(stub)]
    reproduce.main([*argv, "--minutes", "0.001"])
    assert "2 runs, 0 of them done" in capsys.readouterr().out
    assert not list(stub.rglob("*.failed.json"))
    stub.parent.joinpath("worker.py").write_text(WORKER, encoding="utf-8")
    reproduce.main([*argv, "--minutes", "5"])
    assert len(results_of(stub)) == 2
    with pytest.raises(UserError, match="--minutes 0"):
        reproduce.main([*argv, "--minutes", "0"])


def test_results_of_other_settings_are_refused(stub: Path) -> None:
    argv = ["small_e2e", "P=1", "--scale", "tiny", "--results_dir", str(stub)]
    reproduce.main(argv)
    with pytest.raises(UserError, match=r"seed101\.json was made with max_steps 3, now it is 9"):
        reproduce.main([*argv, "--steps", "9"])
    (path,) = results_of(stub)
    result = read(path)
    for settings, message in (
        (result["settings"] | {"more": 1}, r"was made with more 1, now it is None"),
        ({k: v for k, v in result["settings"].items() if k != "inputs"}, "with inputs None, now"),
    ):
        write_json(path, result | {"settings": settings})
        with pytest.raises(UserError, match=message):
            reproduce.main(argv)


@pytest.mark.parametrize("begun", ["run/run_settings.json", "steps.json"])
def test_unfinished_runs_of_other_settings_are_refused(stub: Path, begun: str) -> None:
    """What is done of a run must not be taken for the beginning of another."""
    argv = ["small_e2e", "P=5", "--scale", "tiny", "--results_dir", str(stub)]
    with pytest.raises(UserError, match="1 of 1 runs failed"):
        reproduce.main(argv)
    with pytest.raises(UserError, match="1 of 1 runs failed"):  # nothing was done yet
        reproduce.main([*argv, "--steps", "2"])
    path = stub / "tiny" / "small_e2e" / "P=5" / "seed101" / begun
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"seed101 was begun with max_steps 2, now it is 9"):
        reproduce.main([*argv, "--steps", "9"])
    with pytest.raises(UserError, match="1 of 1 runs failed"):
        reproduce.main([*argv, "--steps", "2"])


def test_rows_held_out_are_the_inputs() -> None:
    run = spec.expand(spec.read("small_ptuning_rates"), SCALES["study"], rows=["rte-head-0.1"])[0]
    assert estimate.n_inputs(run) == 249
    run = spec.expand(spec.read("small_ptuning"), SCALES["study"], rows=["sst2-head"])[0]
    assert estimate.n_inputs(run) == 872


def test_a_run_that_was_interrupted_measures_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("seed1.json", "seed2.json", "seed3.failed.json"):
        write_lines(tmp_path / "table" / "row" / name, [])
    monkeypatch.setattr(estimate, "read_result", lambda path: {"resumed": path.stem == "seed2"})
    assert estimate.finished(tmp_path) == [{"resumed": False}]


def test_estimates_come_from_finished_runs(stub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """3 steps in 6 seconds and 6 texts in 2; a run of 30 steps and 60 texts takes 60 + 20."""
    argv = ["small_e2e", "P=1", "--scale", "tiny", "--results_dir", str(stub)]
    reproduce.main([*argv, "--print"])
    assert "assumed, not measured" in capsys.readouterr().out
    reproduce.main(argv)
    run = spec.expand(
        spec.read("small_e2e"),
        SCALES["tiny"],
        spec.Overrides(steps=30, inputs=60),
        ["P=20"],
    )[0]
    finished = estimate.Estimate(stub / "tiny")
    assert finished.seconds(run) == pytest.approx(60 + 20)
    lines = finished.lines([run, run, run], jobs=2)
    assert lines[0] == "about 2 minutes and 0.0 GB"
    assert all("as measured in finished runs" in line for line in lines[1:])


def test_steps_of_the_published_runs() -> None:
    """README: 21,035 steps of E2E and 18,025 of WebNLG, as the public logs have them."""
    steps = {}
    for name in ("e2e", "webnlg"):
        runs = spec.expand(spec.read(name), SCALES["paper"], rows=["prefix"])
        steps[name] = estimate.n_steps(runs[0])
    assert steps == {"e2e": 21035, "webnlg": 18025}
    tenth = spec.expand(spec.read("data_levels"), SCALES["paper"], rows=["prefix"])[0]
    flags = tenth.settings["flags"]
    assert tenth.level == 10  # of 42,061 pairs
    assert estimate.n_steps(tenth) == math.ceil(4206 / flags.get("bsz", 10)) * flags.get("epoch", 5)


def test_inputs_are_those_of_all_splits() -> None:
    """A data set of fewer inputs than asked for has its own number."""
    experiment = spec.read("e2e")
    assert experiment.splits == ("test", "valid")
    for asked, found in ((7, 14), (9999, 2 * 630)):
        overrides = spec.Overrides(inputs=asked)
        run = spec.expand(experiment, SCALES["paper"], overrides, ["prefix"])[0]
        assert estimate.n_inputs(run) == found


def test_seeds_subsets_and_levels() -> None:
    low_data = spec.read("low_data")
    runs = spec.expand(low_data, SCALES["paper"], rows=["prefix-50"])
    assert len(runs) == 10
    assert {run.settings["flags"]["notes"] for run in runs} == {f"lowdata_{i}_50" for i in range(5)}
    assert {run.settings["flags"]["seed"] for run in runs} == {200, 9}
    levels = spec.expand(spec.read("data_levels"), SCALES["tiny"], rows=["prefix"])
    assert [run.name for run in levels] == [f"seed101_level{n}" for n in (10, 20, 40, 60, 80)]
    assert levels[0].settings["flags"]["max_steps"] == 3
    small = spec.expand(spec.read("e2e"), SCALES["small"])
    assert {run.row.name for run in small} == {"prefix", "finetune", "top2", "adapter-3"} | {
        "adapter-0.1"
    }
    assert {
        run.settings["flags"]["learning_rate"] for run in small if run.row.name == "prefix"
    } == {1e-3}


def test_a_row_may_be_decoded_otherwise() -> None:
    """The scale has the last word."""
    paper, tiny = (
        {run.row.name: run.settings["decoding"] for run in spec.expand(spec.read("recipes"), scale)}
        for scale in (SCALES["paper"], SCALES["tiny"])
    )
    search = {"beam_search": "transformers", "length_penalty": 0.8, "no_repeat_ngram_size": 4}
    search |= {"no_repeat_in": "output"}
    assert paper["prefix"] == paper["lora-prefix-recipe"] == {"num_beams": 5}
    assert paper["lora"] == paper["prefix-lora-recipe"] == search | {"num_beams": 10, "length": 64}
    assert tiny["prefix"] == {"num_beams": 2, "length": 16}
    assert tiny["lora"] == search | {"num_beams": 2, "length": 16}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("scale", ["tiny", "small", "study", "paper"])
def test_print_of_every_table(
    table: str, scale: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = spec.read(table)
    if not experiment.suits(SCALES[scale]):
        pytest.skip("not meant for this scale")
    reproduce.main([table, "--scale", scale, "--print", "--results_dir", str(tmp_path)])
    output = capsys.readouterr().out
    runs = spec.expand(experiment, SCALES[scale])
    assert output.count(" (to do)\n") == len(runs)
    assert f"{len(runs)} runs, 0 of them done" in output
    assert "assumed, not measured" in output or "unknown size" in output
    assert not any(tmp_path.iterdir())


# --- command lines ------------------------------------------------------------------------------


def commands(table: str, scale: str) -> list[Step]:
    runs = spec.expand(spec.read(table), SCALES[scale])
    jobs = [pool.Job(run, Path("/results") / run.folder) for run in runs]
    return [
        step
        for job in jobs
        for step in job.run.experiment.launcher.steps(
            job.describe(Path("/work"), True), "model", Path("/data")
        )
    ]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("scale", ["tiny", "small", "study"])
def test_flags_are_the_launchers(table: str, scale: str) -> None:
    """Each is known to the launcher itself or to the script it starts."""
    experiment = spec.read(table)
    if experiment.launcher not in (GPT2, SEQ2SEQ) or not experiment.suits(SCALES[scale]):
        pytest.skip("see the next test, or not meant for this scale")
    for step in commands(table, scale):
        if step.module == "gpt2.train_e2e":
            launch, rest = launch_flags.read([], step.flags)
            assert parse(rest, train_e2e.values_of(launch, Path("run")))  # or it refuses the rest
            assert train_e2e.command_of(launch, Path("run"))
        elif step.module == "seq2seq.train_bart":
            args, rest = train_bart.read([], step.flags)
            flags = as_words(train_bart.training_flags(args, Path("run")))
            seq2seq_arguments.parse([*flags, *rest])


@pytest.mark.parametrize("table", [name for name in TABLES if "ptuning" in name])
@pytest.mark.parametrize("scale", ["tiny", "small", "study", "paper"])
def test_flags_of_understanding(table: str, scale: str, tmp_path: Path) -> None:
    if not spec.read(table).suits(SCALES[scale]):
        pytest.skip("not meant for this scale")
    for step in commands(table, scale):
        argv = [flag.replace("=/data", f"={tmp_path}") for flag in step.argv]
        model_args, _, run_args, _ = get_args(argv)
        assert model_args.prefix == step.flags.get("prefix", False)
        assert model_args.prefix or not table.startswith("ptuning")
        assert run_args.do_train


def test_the_files_of_gpt2_are_where_it_looks_for_them() -> None:
    assert {"data2text", "webnlg", "triples"} <= {*GPT2.datasets}
    for mode in GPT2.datasets:
        folder = GPT2.data_folder(mode, None)
        wanted = [TASKS[mode].files[split] for split in SPLITS]
        assert GPT2.data_files(mode, folder) == wanted


def test_folders_of_data(tmp_path: Path) -> None:
    """One --data_dir for tables of several data sets, or the folder of one."""
    assert SEQ2SEQ.data_folder("xsum_news", None) is None
    assert SEQ2SEQ.data_folder("xsum_news", str(tmp_path)) == tmp_path
    (tmp_path / "xsum_news").mkdir()
    inside = SEQ2SEQ.data_folder("xsum_news", str(tmp_path))
    assert inside == tmp_path / "xsum_news"
    assert GPT2.data_folder("webnlg", str(tmp_path)) == tmp_path
    (tmp_path / "webnlg_challenge_2017").mkdir()
    (tmp_path / "webnlg_challenge_2017" / "train.json").touch()
    inside = GPT2.data_folder("webnlg", str(tmp_path))
    assert inside == tmp_path / "webnlg_challenge_2017"
    assert PTUNING.data_folder("boolq", str(tmp_path)) == tmp_path


def test_modes_of_bart_are_in_their_folders() -> None:
    for mode, folder in FOLDERS.items():
        assert train_bart.MODES[mode].data == folder


# --- inputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["data2text", "webnlg", "triples"])
def test_files_cut_to_size(mode: str, tmp_path: Path) -> None:
    whole, small = tmp_path / "whole", tmp_path / "small"
    whole.mkdir()
    small.mkdir()
    toy_data.write_data(mode, whole)
    GPT2.cut(mode, whole, small, 3)
    train, valid, test = (TASKS[mode].files[split].name for split in SPLITS)
    every = {r.source for r in read_records(mode, whole / test, training=False)}
    cut = {r.source for r in read_records(mode, small / test, training=False)}
    assert len(cut) == 3
    assert cut < every
    assert (small / train).read_bytes() == (whole / train).read_bytes()
    one = read_records(mode, gpt2_tables.one_reference(small / valid), training=True)
    assert len(one) == 3
    assert gpt2_tables.whole(small / valid).read_bytes() == (whole / valid).read_bytes()


def test_missing_data_is_named(stub: Path, tmp_path: Path) -> None:
    """At once, for every row; nothing is started."""
    with pytest.raises(UserError, match=r"src1_train\.txt is missing"):
        GPT2.cut("data2text", tmp_path, tmp_path, 3)
    argv = ["small_e2e", "P=1", "--data_dir", str(tmp_path), "--results_dir", str(stub)]
    with pytest.raises(UserError, match="1 of 1 runs failed"):
        reproduce.main(argv)
    [path] = stub.rglob("*.failed.json")
    assert "src1_train.txt is missing: see ./scripts/download_data.sh" in read(path)["reason"]
    assert not list(stub.rglob("log.txt"))
    settings = {"flags": {"mode": "xsum_news_sport"}, "data": str(tmp_path / "gone")}
    assert str(tmp_path / "gone") in SEQ2SEQ.missing_data(settings)
    assert SEQ2SEQ.missing_data({**settings, "data": "toy"}) is None


def test_damaged_results_are_named(stub: Path) -> None:
    path = stub / "tiny" / "small_e2e" / "P=1" / "seed101.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"settings": {}}', encoding="utf-8")
    argv = ["small_e2e", "P=1", "--scale", "tiny", "--results_dir", str(stub)]
    for command in (reproduce.main, lambda argv: table_of.main([argv[0], *argv[2:]])):
        with pytest.raises(UserError, match=r"seed101\.json has no device: remove it"):
            command(argv)


def test_made_once_and_whole(tmp_path: Path) -> None:
    """What a kill leaves half made is made again."""
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").touch()
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker.once(tmp_path / "data", make)
    assert not (tmp_path / "data").exists()
    for _ in range(2):
        assert (worker.once(tmp_path / "data", make) / "file").is_file()
    assert len(calls) == 2


@pytest.mark.parametrize("killed", ["one", "three", None])
def test_steps_that_are_done_are_not_done_again(
    killed: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run(step: Any) -> None:
        (tmp_path / RUN).mkdir(exist_ok=True)
        ran.append(step.name)
        if step.name == killed and ran.count(killed) == 1:
            raise KeyboardInterrupt

    steps = [Step(name, "module", {}) for name in ("one", "two", "three")]
    launcher = SimpleNamespace(steps=lambda *_: steps, run=run)
    monkeypatch.setitem(worker.LAUNCHERS, "x", launcher)  # type: ignore[arg-type]
    for find in ("find_model", "find_data"):
        monkeypatch.setattr(worker, find, lambda *_: None)
    job = {"launcher": "x", "work": str(tmp_path / "work")}
    if killed:
        with pytest.raises(KeyboardInterrupt):
            worker.do_steps(job, tmp_path)
    seconds, resumed = worker.do_steps(job, tmp_path)
    assert resumed == bool(killed)
    assert [*seconds] == [*read(tmp_path / STEPS)] == ["one", "two", "three"]
    assert sorted(ran) == sorted([*seconds, *([killed] if killed else [])])


def test_data_of_another_place_or_size_are_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut: list[tuple[Path, int]] = []
    monkeypatch.setattr(type(GPT2), "cut", lambda self, name, whole, to, n: cut.append((whole, n)))
    found = set()
    for place in ("a", "b"):
        folder = tmp_path / place / "data"
        folder.mkdir(parents=True)
        for inputs in (3, 5, 3):
            settings = {"flags": {"mode": "data2text"}, "data": str(folder), "inputs": inputs}
            found.add(worker.find_data({"launcher": GPT2.name, "settings": settings}, tmp_path))
    assert len(found) == len({*cut}) == len(cut) == 4


# --- scores ---------------------------------------------------------------------------------------


def test_scores_in_the_units_of_the_tables(tmp_path: Path) -> None:
    """README: TGen's outputs on E2E, as evaluation.e2e gives them."""
    values = {"BLEU": 0.6593, "BLEU -p": 0.6593, "NIST -p": 8.5923, "CIDEr": 2.2338}
    row = {"values": {**values, "METEOR": None, "ROUGE_L": 0.685}, "missing": {"METEOR": "Java"}}
    (tmp_path / "texts").mkdir()
    path = tmp_path / "texts" / "run_test_beam_eval.json"
    path.write_text(json.dumps({"E2E": row}), encoding="utf-8")
    found, missing = GPT2.scores("evaluation.e2e", "", "test", tmp_path)
    assert found == pytest.approx(
        {"BLEU": 65.93, "NIST": 8.5923, "METEOR": None, "ROUGE-L": 68.5, "CIDEr": 2.2338}
    )
    assert missing == {"METEOR": "Java"}
    # A file that says what its faultless scores are is read by that, an older one as what it was.
    row |= {"values": {"BLEU -p": 65.93, "ROUGE_L": 0.685}, "full": {"BLEU -p": 100, "ROUGE_L": 1}}
    path.write_text(json.dumps({"E2E": row}), encoding="utf-8")
    found, _ = GPT2.scores("evaluation.e2e", "", "test", tmp_path)
    assert (found["BLEU"], found["ROUGE-L"]) == pytest.approx((65.93, 68.5))


@pytest.mark.parametrize(
    ("scorer", "columns", "best", "wanted"),
    [
        ("classification", "RTE", {"best_eval_accuracy": 0.79}, {"RTE": 79}),
        (
            "tagging",
            "CoNLL05",
            {"best_eval_f1": 0.5, "best_test_wsj_f1": 0.88, "best_test_brown_f1": 0.8},
            {"CoNLL05 WSJ": 88, "CoNLL05 Brown": 80},
        ),
        (
            "qa",
            "SQuAD 1.1",
            {"best_eval_f1": 94.1, "best_eval_exact_match": 88.1},
            {"SQuAD 1.1 EM": 88.1, "SQuAD 1.1 F1": 94.1},
        ),
        ("tagging", "CoNLL03", {"best_epoch": 0, "best_eval_f1": 0}, {}),
        ("classification", "RTE", {"best_eval_accuracy": 0.79, "full": 1}, {"RTE": 79}),
        ("classification", "RTE", {"best_eval_accuracy": 79, "full": 100}, {"RTE": 79}),
    ],
)
def test_scores_of_understanding(
    scorer: str, columns: str, best: dict[str, float], wanted: dict[str, float], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best_results.json").write_text(json.dumps(best), encoding="utf-8")
    found, missing = PTUNING.scores(f"evaluation.{scorer}", columns, "test", tmp_path)
    assert found == pytest.approx(wanted)
    assert "above 0" in missing[""]  # for columns that are not found


def test_scores_of_taggers_on_the_development_set(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "best_results.json", {"best_eval_f1": 0.5, "best_test_f1": 0.4})
    for split, wanted in (("test", 40), ("valid", 50)):
        found, _ = PTUNING.scores("evaluation.tagging", "WNUT17", split, tmp_path)
        assert found == {"WNUT17": wanted}


def test_summaries_have_scores_of_both_sets(tmp_path: Path) -> None:
    assert all("--predict_splits=test,val" in step.argv for step in commands("xsum", "tiny"))
    (tmp_path / "run").mkdir()
    for split, value in (("test", 20.5), ("val", 21.5)):
        scores = dict.fromkeys(("rouge1", "rouge2", "rougeL"), value)
        path = tmp_path / "run" / f"{split}_beam_0.8_eval.json"
        path.write_text(json.dumps({"scores": scores}), encoding="utf-8")
    for split, value in (("test", 20.5), ("valid", 21.5)):
        found, _ = SEQ2SEQ.scores("evaluation.summarization", "", split, tmp_path)
        assert found == {"ROUGE-1": value, "ROUGE-2": value, "ROUGE-L": value}


def test_names_of_base_models(tmp_path: Path) -> None:
    """Without the folders they lie in, which differ from machine to machine."""

    def name_of(model: str | None, **flags: str) -> str:
        job = {"settings": {"model": model, "flags": flags}}
        return worker.base_model(job, tmp_path)

    assert name_of(None, finetune_model_path="facebook/bart-large-xsum") == "bart-large-xsum"
    (tmp_path / "run").mkdir()
    settings = {"model_name_or_path": "/somewhere/smollm2-135m"}
    (tmp_path / "run" / "run_settings.json").write_text(json.dumps(settings), encoding="utf-8")
    assert name_of("quickstart") == "smollm2-135m"
    assert name_of("minilm") == "minilm"  # its folder is called "model"


def test_sizes_as_trainings_note_them(tmp_path: Path) -> None:
    assert parameters(tmp_path) == {}
    Sizes(base=124439808, trained=9921536, is_frozen=True, stored=184320).write(tmp_path)
    wanted = {"base": 124439808, "trained": 9921536, "stored": 184320}
    assert parameters(tmp_path) == wanted


# --- experiments' files -------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "table": "e2e",
    "title": "A table",
    "launcher": "gpt2/train_e2e.py",
    "scorer": "evaluation.e2e",
    "seeds": [1],
    "common": {"mode": "data2text"},
    "rows": [{"name": "prefix", "flags": {"preseqlen": 5}}],
}
PTUNING_V2 = {"launcher": "ptuning_v2/run.py", "scorer": "evaluation.classification"}
PAPER_ROW = {"row": "prefix 0.1%", "model": "gpt2-medium"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"launcher": "gpt3.py"}, r"x\.yaml, field launcher: 'gpt3\.py' is none of"),
        ({"scorer": "bleu"}, r"field scorer: 'bleu'"),
        ({"scorer": "evaluation.qa"}, r"field scorer: 'evaluation\.qa' is none of evaluation\.e2e"),
        ({"seed": 3}, r"x\.yaml: there is no field 'seed'"),
        ({"rows": []}, r"x\.yaml, field rows"),
        ({"rows": 3}, r"x\.yaml, field rows: expected list"),
        ({"title": None}, r"field title: expected str"),
        ({"seeds": [1, 1]}, r"field seeds: expected different"),
        ({"seeds": ["a"]}, r"field seeds: expected different values of int"),
        ({"subsets": [0]}, r"row prefix: the field subsets and \{subset\}"),
        ({"common": {"seed": 3}}, r"row prefix: give either seeds or the flag seed"),
        ({"common": {"lr": "5e-5"}}, r"common, flag lr: write 5e-5 as 5\.0e-5"),
        ({"common": {"a": True}}, r"common, flag a: write yes and no in quotes"),
        ({"common": {"a": [1]}}, r"common, flag a: expected one value"),
        ({"rows": [{"name": "a"}]}, r"x\.yaml, row a: the field flags is missing"),
        ({"rows": [{"flags": {}}]}, r"x\.yaml, a row: the field name is missing"),
        ({"rows": [{"name": "a", "flags": {}, "x": 1}]}, r"row a: there is no field 'x'"),
        ({"rows": [{"name": n, "flags": {}} for n in ("a b", "a:b")]}, r"row a:b: another row"),
        ({"common": {}}, r"row prefix: give the flag mode, one of data2text, webnlg, triples"),
        ({"common": {"mode": "e2e"}}, r"row prefix: give the flag mode, one of data2text"),
        (
            PTUNING_V2 | {"common": {"task_name": "glue"}},
            r"row prefix: give the flag dataset_name",
        ),
        (
            {"rows": [{"name": "a", "flags": {}, "decoding": {"split": "valid"}}]},
            r"row a, field decoding: the split is the table's",
        ),
        (
            {"rows": [{"name": "a", "flags": {}, "decoding": {"length_penalty": "8e-1"}}]},
            r"row a, decoding, flag length_penalty: write 8e-1 as",
        ),
        (
            {"decoding": {"num_beams": [5]}},
            r"x\.yaml, decoding, flag num_beams: expected one value",
        ),
        ({"decoding": {"split": "dev"}}, r"field decoding: split is one of train, valid, test"),
        (
            {"rows": [{"name": "a", "flags": {}, "paper_row": PAPER_ROW | {"columns": 3}}]},
            r"row a, paper_row, field columns: expected str",
        ),
        ({"scales": ["huge"]}, r"field scales: there are tiny, small, study, paper"),
        ({"figures": [{"name": "f", "kind": "pie"}]}, r"figure f, field kind: 'pie'"),
        (
            {"figures": [{"name": "f", "kind": "bars", "rows": ["no"]}]},
            r"figure f, field rows: no row no",
        ),
    ],
)
def test_mistakes_in_a_file(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(GOOD | change), encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        spec.read("x", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["many", 10**400, float("nan"), True])
def test_numbers_of_a_file_that_are_none(value: Any, tmp_path: Path) -> None:
    change = {"common": {"mode": "data2text", "max_steps": value}}
    if value is True:  # of a launcher whose flags may be switches
        change = PTUNING_V2 | {"common": {"task_name": "glue", "dataset_name": "sst2"}}
        change["common"]["max_steps"] = value
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(GOOD | change), encoding="utf-8")
    [run, *_] = spec.expand(spec.read("x", tmp_path), SCALES["paper"])
    with pytest.raises(UserError, match=r"x\.yaml, row prefix, flag max_steps: expected a number"):
        estimate.n_steps(run)


def test_one_seed_of_all_rows(tmp_path: Path) -> None:
    """The flag seed may stand in common; --seeds does not replace it, nor that of a row."""
    change = {"common": {"mode": "data2text", "seed": 3}}
    good = {name: value for name, value in GOOD.items() if name != "seeds"} | change
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(good), encoding="utf-8")
    experiment = spec.read("x", tmp_path)
    for overrides in (None, spec.Overrides(seeds=(7,))):
        runs = spec.expand(experiment, SCALES["paper"], overrides)
        assert [(run.name, run.settings["flags"]["seed"]) for run in runs] == [("seed3", 3)]


def test_a_file_that_is_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("rows: [", encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.yaml is not YAML") as error:
        spec.read("x", tmp_path)
    assert "\n" not in str(error.value)


def test_a_run_of_two_processes_is_done_by_one(tmp_path: Path) -> None:
    """The second waits for the first, finds its result, and does nothing."""
    result = tmp_path / "seed1.json"
    folder = tmp_path / "seed1"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({"result": str(result)}), encoding="utf-8")
    result.write_text("{}", encoding="utf-8")
    worker.main([str(folder)])
    assert result.read_text("utf-8") == "{}"
    assert not (folder / worker.STEPS).exists()


def test_one_process_at_a_time_does_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"result": str(tmp_path / "result.json")}
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    lock = FileLock(tmp_path / "lock", timeout=0)

    def steps(job: dict[str, Any], folder: Path) -> None:
        with pytest.raises(Timeout):
            lock.acquire()
        raise UserError("seen")

    monkeypatch.setattr(worker, "do_steps", steps)
    with pytest.raises(UserError, match="seen"):
        worker.main([str(tmp_path)])
    lock.acquire()


def test_run_folders_differ() -> None:
    for table in TABLES:
        experiment = spec.read(table)
        scale = replace(SCALES["paper"], skip_models=())
        folders = [run.folder for run in spec.expand(replace(experiment, scales=None), scale)]
        assert len({*folders}) == len(folders)
