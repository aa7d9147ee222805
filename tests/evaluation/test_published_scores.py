"""Real system outputs on whole test sets, by command, against the published scores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def scores_of(data, tmp_path, needs_java):
    """Runs a scorer as a command on two files and returns what it wrote."""

    def scores_of(name, references, hypotheses):
        command = [sys.executable, "-m", f"evaluation.{name}", data / references, data / hypotheses]
        command += ["--json", tmp_path / "out.json", "--segments"]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        return json.loads((tmp_path / "out.json").read_text("utf-8"))["scores"]

    return scores_of


def test_tgen_on_e2e(scores_of):
    scores = scores_of("e2e", "e2e/testset_w_refs.csv", "e2e/system_outputs/tgen.tsv")["E2E"]
    expected = {"BLEU": 0.6593, "BLEU -p": 0.6593, "NIST": 8.6094, "NIST -p": 8.5923}
    expected |= {"METEOR": 0.4483, "ROUGE_L": 0.6850, "CIDEr": 2.2338}
    assert scores["values"] == pytest.approx(expected, abs=5.1e-5)
    assert {len(values) for values in scores["segments"].values()} == {630}


def test_bart_on_webnlg(scores_of):
    outputs = "webnlg_2017/system_outputs/bart-large_webnlg-all.txt"
    rows = scores_of("webnlg", "webnlg_2017/test.json", outputs)
    for part, bleu, meteor, ter, count in [
        ("All", 58.06, 0.4297, 0.3773, 1862),
        ("Seen", 64.51, 0.4577, 0.3231, 971),
        ("Unseen", 50.20, 0.3975, 0.4414, 891),
    ]:
        assert rows[part]["values"]["BLEU"] == pytest.approx(bleu, abs=0.0051)
        assert rows[part]["values"]["METEOR"] == pytest.approx(meteor, abs=5.1e-5)
        assert rows[part]["values"]["TER"] == pytest.approx(ter, abs=5e-4)
        assert {len(values) for values in rows[part]["segments"].values()} == {count}


def test_bart_on_dart(scores_of):
    outputs = "dart/system_outputs/bart-large_dart.txt"
    scores = scores_of("dart", "dart/dart-v1.1.1-full-test.xml", outputs)["DART"]
    assert scores["values"]["BLEU"] == pytest.approx(48.56, abs=0.0051)
    assert scores["values"]["METEOR"] == pytest.approx(0.3922, abs=5.1e-5)
    assert scores["values"]["TER"] == pytest.approx(0.4470, abs=5e-4)
    assert "April 2021 (5097 records)" in scores["note"]
