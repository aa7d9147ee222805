"""What a run is called and where it goes, from the flags of ``train_e2e.py``.

Names and folders are the original's.
"""

from __future__ import annotations

from gpt2.launch_flags import Launch, LaunchFlags
from gpt2.tasks import TASKS

SUBSET_FOLDERS = {
    "lowdata": "e2e_lowdata_models_prefixtune",
    "datalevels": "e2e_datalevels_models",
}


def _subset_note(args: LaunchFlags) -> str:
    """What a run on a subset says in its name; the original glues it to what stands before."""
    if not args.subset:
        return ""
    plan = args.schedule
    if args.train_size:
        return f"_n={args.train_size}_ss={args.sample_seed}_t={args.lowdata_token}"
    note = f"ev={plan['eval_steps']}_ws={plan['warmup_steps']}_t={args.lowdata_token}"
    if "lowdata" in (args.notes or ""):
        return f"st={plan['max_steps']}_{note}"
    return f"{note}_u={args.use_lowdata_token}"


def flag_length(launch: Launch) -> int:
    """The prefix length; 0 means as many slots as the text has tokens."""
    if launch.args.preseqlen is None:
        return 0 if launch.prefix.init == "text" else 10
    return launch.args.preseqlen


def folder_name(launch: Launch) -> str:
    """The original's folder for runs of this kind."""
    if launch.args.mode == "data2text":
        for word, folder in SUBSET_FOLDERS.items():
            if word in (launch.args.notes or ""):
                return folder
        if launch.prefix.format_mode == "infix":
            return "ablation_e2e_infix_models"
        if launch.prefix.prefix_mode == "embedding":
            return "ablation_e2e_emb_models"
    return TASKS[launch.args.mode].runs


def run_name(launch: Launch) -> str:
    """The original's name of a run. It does say ``o=`` twice."""
    args, prefix = launch.args, launch.prefix
    notes = [note for note in (args.notes, launch.tuning.note()) if note]
    if prefix.prefix_mode == "embedding":
        notes.append(f"p={prefix.parametrize_emb}" if notes else prefix.parametrize_emb)
    words = "_".join(notes) + _subset_note(args)
    notes = [words.removeprefix("_")] if words else []
    if prefix.init_shallow == "yes":
        notes.append(f"s=yes_w={'no' if prefix.init else prefix.init_shallow_word}")
    own = {"deep": prefix.deep == "yes"}
    own |= {"init": bool(prefix.init), "parametrization": bool(prefix.parametrization)}
    own["prefix_options"] = bool(prefix.prefix_options)
    notes += [f"{name}={getattr(prefix, name)}" for name, given in own.items() if given]
    notes.append(f"o={prefix.objective_mode}")
    if prefix.distill == "yes":
        notes.append(f"distill_o={prefix.matching_objective}")
    notes.append(f"o={prefix.objective_mode}")
    return (
        f"{args.mode}{args.tuning_mode}_{prefix.optim_prefix[:1]}_{flag_length(launch)}"
        f"_{prefix.prefix_mode[:3]}_{prefix.format_mode[:3]}"
        f"_b={args.bsz * args.gradient_accumulation_steps}-e={args.epoch}_d={args.dropout}"
        f"_u={prefix.use_dropout}_lr={args.learning_rate}_w={args.weight_decay}_s={args.seed}"
        f"_r={prefix.init_random[:1]}_m={prefix.mid_dim}_{'_'.join(notes)}"
    )
