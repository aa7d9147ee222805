"""The scores the papers report, equal to the official scripts, from plain files or from Python.

========================  =====================================================================
``evaluation.e2e``        BLEU, NIST, METEOR, ROUGE-L, CIDEr as e2e-metrics prints them
``evaluation.webnlg``     BLEU, METEOR, TER of the WebNLG 2017 challenge: seen, unseen, all
``evaluation.dart``       the same three on DART, and BERTScore, MoverScore, BLEURT
``evaluation.summarization``  ROUGE-1/2/L and ROUGE-Lsum
``evaluation.translation``  BLEU, and the share of outputs that are right
``evaluation.classification``  accuracy, F1, Matthews, Pearson, Spearman of GLUE and SuperGLUE
``evaluation.qa``         SQuAD 1.1 and 2.0, ReCoRD, MultiRC
``evaluation.tagging``    chunk F1 of named entities and semantic roles
========================  =====================================================================

Each runs as ``python -m evaluation.NAME REFERENCES HYPOTHESES [--json out.json]`` and has functions
that take lists and return :class:`evaluation.report.Scores`, or one of these per row of a table.
"""
