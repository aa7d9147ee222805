"""METEOR 1.5 and Stanford's PTBTokenizer: the two Java programs behind the official numbers.

Both jars come with pycocoevalcap 1.2 and are the very files of e2e-metrics. They are called here
directly because that package's wrappers write into the installed package, leave METEOR running,
and cannot score several parts of a test set with one start (about 5 seconds, 2 GB of memory).
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from evaluation.report import Unavailable

# Tokens dropped after tokenisation by the COCO caption code (ptbtokenizer.py). The brackets
# never match, because -lowerCase writes -lrb-: they stay in the text, there as here.
_PUNCTUATION = {"''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-"}
_PUNCTUATION |= {".", "?", "!", ",", ":", "-", "--", "...", ";"}


def _jar(module: str, name: str) -> str:
    """Path of a jar of pycocoevalcap; Unavailable if the package or Java is not installed."""
    spec = None
    if importlib.util.find_spec("pycocoevalcap") is not None:
        spec = importlib.util.find_spec(f"pycocoevalcap.{module}")
    if spec is None or spec.origin is None:
        raise Unavailable("needs pycocoevalcap: pip install pycocoevalcap")
    if shutil.which("java") is None:
        raise Unavailable("needs Java: install a runtime, e.g. apt install default-jre-headless")
    return str(Path(spec.origin).with_name(name))


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def ptb_tokenize(texts: Sequence[str]) -> list[str]:
    """Tokenise and lower-case as the COCO caption code does, punctuation dropped.

    Args:
        texts: any number of texts, at most a few hundred thousand; one Java start for all.

    Returns:
        One string per text, tokens separated by single spaces.

    Raises:
        Unavailable: Java or the package is missing.
    """
    jar = _jar("tokenizer.ptbtokenizer", "stanford-corenlp-3.4.1.jar")
    command = ["java", "-cp", jar, "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    lines = "".join(_one_line(text) + "\n" for text in texts)
    run = subprocess.run(command, input=lines.encode(), capture_output=True, check=False)
    if run.returncode != 0:
        raise Unavailable(_java_failed(run.stderr))
    tokenized = run.stdout.decode().removesuffix("\n").split("\n")
    if len(tokenized) != len(texts):
        raise RuntimeError(f"PTBTokenizer returned {len(tokenized)} lines for {len(texts)} texts")
    return [" ".join(w for w in line.split(" ") if w not in _PUNCTUATION) for line in tokenized]


def _java_failed(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines() or ["no message"]
    return f"needs Java, which did not run: {lines[0]}"


def meteor(
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[str],
    parts: Sequence[Sequence[int]],
) -> list[tuple[float, list[float]]]:
    """METEOR 1.5 (Denkowski and Lavie 2014), English, ``-norm``, best reference per segment.

    Args:
        references: one or more texts per segment.
        hypotheses: one text per segment.
        parts: the segments, by number from 0, of each corpus to score.

    Returns:
        For each part its score, which is not the mean but is computed from the summed
        statistics, and the score of each of its segments; all from 0 to 1.

    Raises:
        Unavailable: Java or the package is missing.
    """
    command = ["java", "-Xmx2G", "-jar", _jar("meteor.meteor", "meteor-1.5.jar")]
    command += ["-", "-", "-stdio", "-l", "en", "-norm"]
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile() as log:
        try:
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log) as process:
                return _converse_with_meteor(process, references, hypotheses, parts)
        except (BrokenPipeError, EOFError) as error:
            log.seek(0)
            raise Unavailable(_java_failed(log.read())) from error


def _converse_with_meteor(
    process: subprocess.Popen[bytes],
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[str],
    parts: Sequence[Sequence[int]],
) -> list[tuple[float, list[float]]]:
    """METEOR's protocol: SCORE gives a segment's statistics, EVAL the scores of a list of them."""
    assert process.stdin is not None
    assert process.stdout is not None
    to_meteor, from_meteor = process.stdin, process.stdout

    def send(*fields: str) -> None:
        to_meteor.write(" ||| ".join(fields).encode() + b"\n")
        to_meteor.flush()

    def receive() -> str:
        line = from_meteor.readline().decode().strip()
        if not line:
            raise EOFError
        return line

    statistics = []
    pairs = zip(references, hypotheses, strict=True)
    for refs, hyp in tqdm(pairs, "METEOR", len(hypotheses), leave=False, disable=None):
        send("SCORE", *(_one_line(text).replace("|||", "") for text in (*refs, hyp)))
        statistics.append(receive())
    results = []
    for part in parts:
        send("EVAL", *(statistics[i] for i in part))
        segments = [float(receive()) for _ in part]
        results.append((float(receive()), segments))
    return results
