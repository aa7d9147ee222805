"""Every case of the original's numbers is one that some test takes."""

from __future__ import annotations

from conftest import ROOT, VECTORS, official_files, vector_cases

TAKEN = ("gpt2_", "bart_", "ptuning_")
"""How the names of cases begin that tests ask :func:`conftest.vector_cases` for."""
TAKEN_OFFICIAL = (
    *("bertscore_tiny", "classification_qa_ner", "dart", "e2e_", "rouge_"),
    *("ter_bleu_meteor_edge_cases", "webnlg"),
)


def test_no_case_is_left_out() -> None:
    assert [name for name in vector_cases("") if not name.startswith(TAKEN)] == []
    assert [name for name in official_files("") if not name.startswith(TAKEN_OFFICIAL)] == []


def test_cases_of_both_folders_are_found() -> None:
    here = {path.stem for path in (ROOT / "tests" / "vectors").glob("*.safetensors")}
    assert here <= {*vector_cases("")}
    assert {*vector_cases("gpt2_", "beam", "lowdata")} >= {"mlp_p1", "emb_mlp", "shallow_random"}
    for folder in VECTORS:
        for path in folder.glob("*.safetensors"):
            described = "gpt2_beam" if path.stem.startswith("gpt2_beam_") else path.stem
            assert path.with_name(f"{described}.json").is_file()
