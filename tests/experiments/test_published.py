"""Published runs: the format, what is refused, and how they join a person's own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from experiments import figures, formats, pool, published, reproduce, scales, spec, table
from experiments.model import Cell
from experiments.results import check_published
from prefix_tuning.errors import UserError
from prefix_tuning.files import write_json, write_lines

FOLDER = ROOT / "results" / "published"
FILES = sorted(FOLDER.rglob("*.json"))
README = (FOLDER / "README.md").read_text(encoding="utf-8")
SMALL = scales.named("small")


def example() -> dict[str, Any]:
    """The run that the README shows."""
    [text] = re.findall(r"```json\n(.*?)```", README, re.S)
    return json.loads(text)


def test_the_example_of_the_readme_fits() -> None:
    run = example()
    assert check_published(Path("x.json"), run) is run
    assert {f"`{name}`" for name in run} <= {*re.findall(r"`\w+`", README)} | {
        f"`{name}`" for name in ("steps", "n_inputs", "model", "machine", "device", "versions")
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-2:]))
def test_every_published_run_fits_and_stands_in_its_table(path: Path) -> None:
    run = json.loads(path.read_text(encoding="utf-8"))
    scale = scales.named(run["scale"])
    experiment = spec.read(path.parent.name)
    found = published.read(experiment, scale.name, FOLDER.parent)
    name = spec.run_name(run["seed"], run["subset"], run["level"])
    assert found[run["row"]][name]["scores"] == run["scores"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"commit": None}, r"x\.json has no commit: see results/published/README\.md"),
        ({"commit": "main"}, r"x\.json, field commit: expected 40 hexadecimal digits"),
        ({"host": "me"}, r"x\.json, field host: there is no such field"),
        ({"data_sha256": {"train_file": "abc"}}, "field data_sha256: expected a SHA-256 of every"),
        ({"scores": {"test": {"BLEU": float("nan")}}}, "field scores: expected finite numbers"),
        ({"command": "python x.py"}, r"field command: expected \./scripts/reproduce\.sh"),
        ({"commit": "a" * 41}, r"x\.json, field commit: expected 40 hexadecimal digits"),
        ({"data_sha256": {"~/x.txt": "0" * 64}}, "field data_sha256: holds a path of your"),
        ({"seed": True}, "field seed: expected a count"),
        ({"settings": {"flags": {"init": "/home/me/x"}}}, "field settings: holds a path of your"),
        ({"missing": {"test": {"CIDEr": r"no C:\data"}}}, "field missing: holds a path of your"),
        ({"machine": ""}, "field machine: expected a kind of processor"),
    ],
)
def test_what_is_refused(change: dict[str, Any], message: str) -> None:
    run = {
        k: v for k, v in (example() | change).items() if v is not None or k in ("subset", "level")
    }
    with pytest.raises(UserError, match=message):
        check_published(Path("x.json"), run)


def put(results: Path, name: str, **change: Any) -> dict[str, Any]:
    """Publish a run by hand."""
    run = example() | change
    folder = results / "published" / "small_e2e"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", run)
    return run


def bleu(value: float) -> dict[str, Any]:
    return {"test": {"BLEU": value}}


def test_a_table_and_its_figures_of_published_runs_alone(tmp_path: Path) -> None:
    """57 and 59: 58, deviation the root of 2, interval 12.706 times 1 for one degree of freedom."""
    flags = {"preseqlen": 1, "tuning_mode": "prefixtune"}
    for seed, value in ((101, 57.0), (7, 59.0)):
        settings = {"flags": {**flags, "seed": seed}}
        put(tmp_path, f"somebody_{seed}", seed=seed, scores=bleu(value), settings=settings)
    put(tmp_path, "tiny", scale="tiny", scores=bleu(1.0))
    experiment = spec.read("small_e2e")
    made = table.build(experiment, SMALL, tmp_path)
    cell = made.lines[0].cells["BLEU"]
    assert (cell.value, cell.n) == (58.0, 2)
    assert cell.spread == pytest.approx(2**0.5)
    assert cell.interval == pytest.approx(12.706, abs=1e-3)
    assert "P=1: 2 of 2 runs are published ones" in made.notes
    assert "58.0 ± 1.4 (2), 45.3 to 70.7" in formats.markdown(made)
    results = table.read_runs(experiment, SMALL, tmp_path)["P=1"].results
    [(x, y, _)] = figures.points("trained", "BLEU", "test", results)
    assert (x, y) == (6243968, 58.0)


def test_interval_of_ten_runs() -> None:
    """By hand: 1 to 10 have deviation 3.0277; t of 9 degrees is 2.262."""
    cell = Cell.of([float(n) for n in range(1, 11)])
    assert cell.interval == pytest.approx(2.262 * 3.0277 / 10**0.5, abs=1e-3)
    assert Cell.of([3.0]) == Cell(3.0, n=1)


def test_published_runs_beside_ones_own(tmp_path: Path) -> None:
    """The same run counts once, another seed joins, other settings stay apart."""
    own = put(tmp_path, "same", scores=bleu(50.0))
    folder = tmp_path / "small" / "small_e2e" / "P=1"
    folder.mkdir(parents=True)
    write_json(folder / "seed101.json", own | {"scores": bleu(52.0)})
    put(tmp_path, "joins", seed=3, scores=bleu(54.0))
    longer = {**own["settings"], "flags": {**own["settings"]["flags"], "max_steps": 300}}
    put(tmp_path, "longer", seed=4, scores=bleu(90.0), settings=longer)
    made = table.build(spec.read("small_e2e"), SMALL, tmp_path)
    assert (made.lines[0].cells["BLEU"].value, made.lines[0].cells["BLEU"].n) == (53.0, 2)
    apart = "published with other settings, not counted: seed4 (max_steps 300, not 150)"
    assert {"P=1: 1 of 2 runs are published ones", f"P=1: {apart}"} <= {*made.notes}


def test_files_in_the_wrong_place(tmp_path: Path) -> None:
    for change in ({"table": "e2e"}, {"row": "P=3"}, {"scale": "smal"}):
        put(tmp_path, "x", **change)
        with pytest.raises(UserError, match=r"x\.json, field (table|row|scale): "):
            table.build(spec.read("small_e2e"), SMALL, tmp_path)
    for name in "xy":
        put(tmp_path, name, scores=bleu(50.0))
    with pytest.raises(UserError, match=r"y\.json is the same run as x\.json: keep one"):
        table.build(spec.read("small_e2e"), SMALL, tmp_path)


def test_finished_runs_are_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs included, places on this machine left out; nothing is trained."""
    monkeypatch.setattr(pool, "spawn", lambda *_: pytest.fail("a run was started"))
    argv = [
        "small_e2e",
        "P=1",
        "--seeds",
        "101",
        "--model_name_or_path",
        str(tmp_path),
        "--publish",
    ]
    argv += ["--results_dir", str(tmp_path)]
    [job] = reproduce.make_jobs(reproduce._parser().parse_args(argv))
    reproduce.main(argv)
    assert "1 runs, 0 of them done" in capsys.readouterr().out
    unwanted = ("command", "outputs", "commit")
    older = {k: v for k, v in example().items() if k not in unwanted}
    older["settings"] = job.run.settings
    (job.folder / "texts").mkdir(parents=True)
    write_json(job.result, older)
    with pytest.raises(UserError, match="as an older version wrote it: remove it and the folder"):
        reproduce.main(argv)
    write_json(job.result, older | published.provenance(job.folder))
    write_json(job.folder / "texts" / "run_test_beam_eval.json", {})
    write_lines(job.folder / "texts" / "run_test_beam", ["one", "two"])
    path = tmp_path / "published" / "small_e2e" / "small_P=1_seed101.json"
    reproduce.main([*argv, "--print"])
    assert not path.exists()
    reproduce.main(argv)
    run = json.loads(path.read_text(encoding="utf-8"))
    assert run["outputs"] == {"test": ["one", "two"]}
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    assert run["command"] == (
        "./scripts/reproduce.sh small_e2e P=1 --scale small --seeds 101 --model_name_or_path "
        + tmp_path.name
    )
    assert table.build(spec.read("small_e2e"), SMALL, tmp_path).lines[0].cells["BLEU"].n == 1


def test_runs_of_other_seeds_and_subsets_share_a_mean() -> None:
    def run(seed: int, **flags: object) -> dict[str, Any]:
        notes = f"lowdata_{seed}_50"  # which subset
        return {"model": "m", "settings": {"flags": {"seed": seed, "notes": notes, **flags}}}

    assert published.compared(run(1)) == published.compared(run(2))
    assert published.compared(run(1, bsz=8)) != published.compared(run(1, bsz=4))
