"""From flags to a prefix: which variant, how long, and what it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.flags import flag, one_of, yes_no
from harness.progress import through
from harness.ranges import COUNT_OR_NONE, FRACTION, WIDTH
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_text
from prefix_tuning.names import BUILT_IN

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from gpt2.train_control import PrefixTuning

INITS = ("random", "zero", "text")


@dataclass(frozen=True)
class PrefixFlags:
    """The prefix: its form, its length, what it starts from, and how its losses add up."""

    optim_prefix: str = yes_no("no", "optimise a prefix; must be yes to train one")
    preseqlen: int = flag(
        0, "prefix length; 0 with --init text: as many slots as tokens", within=COUNT_OR_NONE
    )
    mid_dim: int = flag(512, "hidden width of the prefix's MLP", within=WIDTH)
    prefix_dropout: float = flag(0.0, "dropout on the generated keys and values", within=FRACTION)
    prefix_mode: str = flag("activation", "activation, or embedding: vectors instead of words")
    parametrize_emb: str = flag("MLP", "vectors of --prefix_mode embedding: MLP or Emb (none)")
    format_mode: str = flag("cat", "cat or peek (they train the same), or infix")
    deep: str = yes_no("no", "give the prefix's MLP one more hidden layer")
    init_shallow: str = yes_no("no", "optimise keys and values themselves, without an MLP")
    init_shallow_word: str = flag("no", "words it starts from; their number replaces --preseqlen")
    parametrization: str | None = flag(
        None, f"the variant by name, instead of the flags above: {', '.join(BUILT_IN)}, ..."
    )
    prefix_options: str | None = flag(
        None, "options of that parametrisation by name, as rank=4,scale=0.5"
    )
    init: str | None = flag(None, f"what the prefix starts from: {', '.join(INITS)}")
    init_text: str | None = flag(None, "the text of --init text: a word, an instruction, ...")
    init_file: str | None = flag(None, "a file with the text of --init text")
    init_random: str = yes_no("no", "accepted without effect, as in the original")
    use_dropout: str = yes_no("no", "keep the frozen model's own dropout on while training")
    objective_mode: int = flag(2, "how the losses of tokens are added up: 0 to 4")

    def __post_init__(self) -> None:
        if self.objective_mode not in range(5):
            raise UserError(f"--objective_mode {self.objective_mode}: use 0, 1, 2, 3 or 4")

    @property
    def variant(self) -> str:
        """The variant that the flags name, or that the original's flags amount to."""
        if self.parametrization is not None:
            return self.parametrization
        if self.prefix_mode == "embedding":
            return "embedding"
        if self.format_mode == "infix":
            return "infix"
        return "flat" if self.init_shallow == "yes" else "mlp"

    @property
    def reads_source(self) -> bool:
        """Whether the prefix stands between source and target, which batches then keep apart."""
        from prefix_tuning.parametrizations import PARAMETRIZATIONS

        return PARAMETRIZATIONS[self.variant].reads_source

    @property
    def can_start(self) -> bool:
        """Whether the prefix can start from chosen keys and values; others start random."""
        from prefix_tuning.parametrizations import PARAMETRIZATIONS

        return PARAMETRIZATIONS[self.variant].can_start

    @property
    def starts_from(self) -> str:
        """What the prefix starts from, one of :data:`INITS`."""
        from_word = self.init_shallow == "yes" and self.init_shallow_word != "no"
        return self.init or ("text" if from_word else "random")

    def check(self) -> None:
        """Refuse what is impossible, before anything is loaded.

        Raises:
            UserError: naming the flags.
        """
        from prefix_tuning.choice import parse_options
        from prefix_tuning.parametrizations import PARAMETRIZATIONS

        if self.optim_prefix != "yes":
            raise UserError("--optim_prefix no leaves this --tuning_mode without a prefix: use yes")
        one_of(("activation", "embedding"), prefix_mode=self.prefix_mode)
        one_of(("cat", "peek", "nopeek", "infix"), format_mode=self.format_mode)
        one_of(("MLP", "Emb"), parametrize_emb=self.parametrize_emb)
        one_of(PARAMETRIZATIONS, parametrization=self.parametrization)
        parse_options(self.variant, self.prefix_options)
        one_of(INITS, init=self.init)
        if self.format_mode == "nopeek":
            raise UserError("--format_mode nopeek: the model would never see the source; use cat")
        self._check_variant()
        self._check_init()

    def _check_variant(self) -> None:
        flags = {
            "--prefix_mode embedding": self.prefix_mode == "embedding",
            "--format_mode infix": self.format_mode == "infix",
            "--init_shallow yes": self.init_shallow == "yes",
            "--deep yes": self.deep == "yes" and self.format_mode != "infix",
        }
        given = [flag for flag, is_given in flags.items() if is_given]
        if len(given) > 1:
            raise UserError(f"{given[0]} and {given[1]} exclude each other: they are two variants")
        if self.parametrization is not None and given:
            raise UserError(f"--parametrization {self.parametrization} and {given[0]}: give one")

    def _check_init(self) -> None:
        start, variant = self.starts_from, self.variant
        if self.init is not None and self.init_shallow_word != "no":
            raise UserError(
                f"--init {self.init} and --init_shallow_word exclude each other: give one"
            )
        if self.init_shallow_word != "no" and self.init_shallow != "yes":
            raise UserError("--init_shallow_word: only with --init_shallow yes; use --init text")
        if start != "random" and not self.can_start:
            raise UserError(
                f"--init {start}: a prefix of the variant {variant} can only start random"
            )
        texts = [name for name in ("init_text", "init_file") if getattr(self, name) is not None]
        if texts and self.init != "text":
            raise UserError(f"--{texts[0]}: only with --init text")
        if self.init == "text" and len(texts) != 1:
            raise UserError("--init text: give either --init_text or --init_file")
        if self.init_file is not None and not Path(self.init_file).is_file():
            raise UserError(f"--init_file {self.init_file}: there is no such file")
        if self.init_shallow_word != "no" and self.prefix_dropout:
            raise UserError(
                f"--prefix_dropout {self.prefix_dropout}: the original has none in a prefix "
                "started from --init_shallow_word; with --init text there can be"
            )
        if self.preseqlen < 1 and start != "text":
            raise UserError(f"--preseqlen {self.preseqlen}: a prefix needs at least one slot")

    def word_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The tokens whose keys and values the prefix starts from; none with other starts.

        As in the original, a space stands in front and no special token.

        Raises:
            UserError: the text is empty.
        """
        if self.starts_from != "text":
            return []
        text, given = self.init_text, "--init_text"
        if self.init_file is not None:
            given = f"--init_file {self.init_file}"
            text = read_text(Path(self.init_file))
        elif self.init is None:
            text, given = self.init_shallow_word, "--init_shallow_word"
        if not text or not text.strip():
            raise UserError(f"{given}: the text to start from is empty")
        return tokenizer(f" {text.strip()}", add_special_tokens=False).input_ids

    def slots(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """The prefix length ``P``.

        ``--preseqlen`` if given; otherwise as many slots as the text has tokens. The number of
        tokens of ``--init_shallow_word`` always replaces ``--preseqlen``, as in the original.
        """
        words = self.word_ids(tokenizer)
        if words and (self.init is None or not self.preseqlen):
            return len(words)
        return self.preseqlen

    def make_prefix(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> PrefixTuning:
        """Make the prefix that the flags describe, with random parameters."""
        from gpt2.train_control import PrefixTuning
        from prefix_tuning.choice import parse_options

        name = self.variant
        return PrefixTuning(
            model.config,
            preseqlen=self.slots(tokenizer),
            deep_param=self.deep == "yes",
            mid_dim=self.mid_dim,
            prefix_dropout=self.prefix_dropout,
            objective_mode=self.objective_mode,
            end_id=tokenizer.eos_token_id,
            parametrization=name,
            parametrize_emb=self.parametrize_emb,
            prefix_options=parse_options(name, self.prefix_options),
        )

    def initialise(
        self,
        prefix: PrefixTuning,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        """Bring a new prefix to where the flags let it start.

        Args:
            model: after ``enable_prefix``, on the prefix's device.
        """
        import torch

        from prefix_tuning.initialization import activations, resize

        if self.starts_from == "zero":
            prefix.start_at_zero()
        words, n_slot = self.word_ids(tokenizer), prefix.length
        if not words:
            return
        how = ""
        if n_slot != len(words):
            how = ": the first ones" if n_slot < len(words) else ": again from the first"
        print(f"the prefix of {n_slot} slots starts from a text of {len(words)} tokens{how}")
        ids = torch.tensor([words[:n_slot]], device=model.device)
        slots = resize(activations(model, ids), n_slot)
        prefix.start(slots, progress=partial(through, name="fitted steps"))
