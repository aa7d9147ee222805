"""The flags of decoding; no torch is needed to read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpt2.arguments import ACTIVATIONS, DTYPES, EMPTY_SOURCES, DataArguments
from gpt2.tasks import TASKS, Task
from harness.flags import HIDDEN, flag, like, one_of, ranges_of, required
from harness.own_data import Columns
from harness.ranges import COUNT, COUNT_OR_NONE, EXPONENT, PROBABILITY, SEED, check_all
from prefix_tuning.errors import UserError

NO_REPEAT_IN = ("text", "output")
"""Where n-grams are counted: prompt and output, or the output alone."""


@dataclass(frozen=True)
class Search:
    """How texts are searched for; the defaults are the original's for table-to-text."""

    num_beams: int = 5
    max_new_tokens: int = 100
    min_length: int = 5
    length_penalty: float = 1.0
    implementation: str = "paper"
    """Length normaliser: ``paper`` (that of 2020) or ``transformers`` (today's)."""
    n_sample: int = 0
    """Texts drawn for every prompt by nucleus sampling (Holtzman et al. 2020); 0: beam search."""
    top_p: float = 0.8
    seed: int = 42
    no_repeat_ngram_size: int = 0
    """Tokens of the n-grams that come only once; 0: they may repeat."""
    no_repeat_in: str = "text"
    """Where they are counted, one of :data:`NO_REPEAT_IN`."""

    def __post_init__(self) -> None:
        one_of(("paper", "transformers"), beam_search=self.implementation)
        one_of(NO_REPEAT_IN, no_repeat_in=self.no_repeat_in)

    @property
    def options(self) -> dict[str, object]:
        """What decides the texts, by name; nothing of n-grams where these may repeat.

        Texts of versions that could not forbid it are known by the rest.
        """
        left_out = () if self.no_repeat_ngram_size else ("no_repeat_ngram_size", "no_repeat_in")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    @property
    def name(self) -> str:
        """What the files of its texts are called."""
        return "nucleus" if self.n_sample else "beam" if self.num_beams > 1 else "greedy"


@dataclass(frozen=True)
class DecodeOptions:
    """How texts are made."""

    tokenizer_name: str | None = flag(None, "tokenizer, if not the model's")
    cache_dir: str | None = flag(None, "folder for downloaded models")
    data_file: str | None = flag(None, "file to decode, if not the split's in data/")
    source_column: str | None = like(DataArguments, "source_column")
    target_column: str | None = like(DataArguments, "target_column")
    length: int = flag(100, "maximal number of new tokens", within=COUNT)
    search: str | None = flag(
        None, "way of searching, if not the task's own", choices=("beam", "greedy", "nucleus")
    )
    num_beams: int | None = flag(
        None, "beams of beam search (default: 5); 1 is greedy search", within=COUNT
    )
    beam_search: str = flag(
        "paper",
        "length normaliser of beam search: the paper's, of 2020 (or legacy), or today's",
        choices=("paper", "legacy", "transformers"),
    )
    length_penalty: float = flag(
        1.0, "exponent of the length that a beam's score is divided by", within=EXPONENT
    )
    no_repeat_ngram_size: int = flag(
        0, "let no n-gram of this many tokens come twice; 0: let them", within=COUNT_OR_NONE
    )
    no_repeat_in: str = flag(
        "text",
        "where no n-gram may come twice: in prompt and output, as transformers counts, or in the "
        "output alone",
        choices=NO_REPEAT_IN,
    )
    top_p: float = flag(
        0.8, "nucleus: probability of the tokens to choose from", within=PROBABILITY
    )
    num_return_sequences: int = flag(5, "nucleus: texts for every prompt", within=COUNT)
    seed: int = flag(42, "nucleus: seed of what is drawn", within=SEED)
    batch_size: int | None = flag(
        None, "prompts decoded together (64; on a GPU as many as it has memory for)", within=COUNT
    )
    empty_sources: str = flag(
        "refuse", "what becomes of inputs without a source", choices=EMPTY_SOURCES
    )
    limit: int | None = flag(None, "decode only the first N inputs", within=COUNT)
    separator: str | None = flag(None, "text between source and target, if not the checkpoint's")
    dtype: str | None = flag(None, "precision, if not the checkpoint's", choices=DTYPES)
    activation: str = flag(
        "fused", "GPT-2's GELU as one kernel, or as transformers writes it", choices=ACTIVATIONS
    )
    no_score: bool = flag(False, "leave the texts unscored")
    overwrite_results: bool = flag(False, "replace texts that other weights, data or search made")
    no_cuda: bool = flag(False, "compute on the CPU even if there is a GPU")
    # Flags of the original that its own runs leave without effect.
    model_type: str | None = flag(None, HIDDEN)
    tuning_mode: str | None = flag(None, HIDDEN)
    control_mode: str | None = flag(None, HIDDEN)
    prefix_mode: str | None = flag(None, HIDDEN)
    format_mode: str | None = flag(None, HIDDEN)
    optim_prefix: str | None = flag(None, HIDDEN)
    preseqlen: str | None = flag(None, HIDDEN)
    stop_token: str | None = flag(None, HIDDEN)

    def __post_init__(self) -> None:
        check_all(ranges_of(type(self)), vars(self))
        if self.no_repeat_in != "text" and not self.no_repeat_ngram_size:
            raise UserError(f"--no_repeat_in {self.no_repeat_in}: only with --no_repeat_ngram_size")


@dataclass(frozen=True, kw_only=True)
class DecodeRequest(DecodeOptions):
    """What is decoded."""

    model_name_or_path: str = required("base model, or fine-tuned model")
    prefixModel_name_or_path: str | None = flag(None, "folder of a prefix, adapters or LoRA")
    prefix_bank: str | None = flag(
        None, "folder of prefixes; the records of --data_file name theirs in a field prefix"
    )
    task_mode: str = flag("data2text", "task", choices=tuple(TASKS))
    eval_dataset: str = flag("valid", "split", choices=("train", "valid", "test"))
    gen_dir: str = flag("e2e_results_conv2", "folder of the results")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_bank()
        if self.num_beams and self._search != "beam":
            raise UserError(f"--num_beams {self.num_beams}: --search {self._search} has no beams")
        self._check_search()
        if self.data_file is None and self.eval_dataset not in self.task.files:
            raise UserError(f"{self.task_mode} has no {self.eval_dataset} file: name --data_file")

    def _check_search(self) -> None:
        """Refuse what another search would read."""
        of_others = {"length_penalty": 1.0} if self._search != "beam" else {}
        if self._search != "nucleus":
            of_others |= {"top_p": 0.8, "num_return_sequences": 5}
        for name, default in of_others.items():
            if getattr(self, name) != default:
                search = "beam" if name == "length_penalty" else "nucleus"
                raise UserError(
                    f"--{name} {getattr(self, name)}: only with --search {search}, not with "
                    f"{self._search}"
                )

    def _check_bank(self) -> None:
        if self.prefix_bank is None:
            return
        if self.prefixModel_name_or_path is not None:
            raise UserError("--prefix_bank and --prefixModel_name_or_path: give one of them")
        if not Path(self.prefix_bank).is_dir():
            raise UserError(f"--prefix_bank {self.prefix_bank}: there is no such folder")
        if self.data_file is None:
            raise UserError("--prefix_bank: name the file of the records with --data_file")

    @property
    def task(self) -> Task:
        """The row of the task."""
        return TASKS[self.task_mode]

    @property
    def data(self) -> str | Path:
        """The file to decode, or the name of a data set."""
        return self.data_file or self.task.files[self.eval_dataset]

    @property
    def columns(self) -> Columns:
        """Those that the flags name."""
        return Columns(self.source_column, self.target_column)

    @property
    def folder(self) -> Path:
        """The folder of what was trained."""
        return Path(self.prefixModel_name_or_path or self.prefix_bank or self.model_name_or_path)

    @property
    def _search(self) -> str:
        return self.search or ("beam" if self.num_beams else self.task.search)

    def how(self) -> Search:
        """The search that the flags ask for, or else the task."""
        return Search(
            1 if self._search == "greedy" else self.num_beams or 5,
            self.length,
            length_penalty=self.length_penalty,
            implementation="paper" if self.beam_search == "legacy" else self.beam_search,
            n_sample=self.num_return_sequences if self._search == "nucleus" else 0,
            top_p=self.top_p,
            seed=self.seed,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            no_repeat_in=self.no_repeat_in,
        )
