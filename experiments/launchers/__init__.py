"""The launchers that tables are made with, by the names that the files of ``tables/`` give them."""

from experiments.launchers.base import Launcher
from experiments.launchers.gpt2 import Gpt2
from experiments.launchers.ptuning_v2 import PtuningV2
from experiments.launchers.seq2seq import Seq2seq

LAUNCHERS: dict[str, Launcher] = {
    launcher.name: launcher for launcher in (Gpt2(), Seq2seq(), PtuningV2())
}
