#!/bin/sh
# What needs a GPU, in one command of under 8 minutes: correctness first, then ratios.
#     sh benchmarks/gpu.sh [FOLDER]      writes FOLDER/*.json and *.txt (default: gpu_results)
# It has been written without a GPU and not been run on one yet.
set -u
cd "$(dirname "$0")/.." || exit 1
out=${1:-gpu_results}
mkdir -p "$out"
python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "error: torch sees no GPU here; benchmarks/README.md has the figures of CPUs" >&2
    exit 2
}
failed=0

step() { # NAME LIMIT COMMAND...: what takes longer than its limit is stopped, and the rest runs
    name=$1 limit=$2
    shift 2
    echo "== $name"
    timeout "$limit" "$@" >"$out/$name" 2>"$out/$name.log" || {
        echo "failed or too slow: see $out/$name.log"
        failed=1
    }
}

step correctness.txt 110 python -m scripts.verify --only gpu
step graphs_10.json 60 python benchmarks/graphed_steps.py --batch_size 10
[ $failed = 0 ] || echo "not correct: the ratios below are worth nothing before that is mended"
step graphs_64.json 50 python benchmarks/graphed_steps.py --batch_size 64 --batches 4
step training.txt 80 python benchmarks/gpt2_training.py --shape gpt2-medium --preseqlen 5 --dtype bfloat16
step decoding.txt 120 python benchmarks/gpt2_decoding.py --shape gpt2-medium --dtype bfloat16
step decoding_630.txt 40 python benchmarks/gpt2_decoding.py --shape gpt2-medium --dtype bfloat16 \
    --prompts 630 --batch_size 315 --ours_alone
step bart.txt 60 python benchmarks/bart_training.py --dtype bfloat16
step ptuning.txt 45 python benchmarks/ptuning_training.py --rounds 30 --dtype bfloat16
exit $failed
