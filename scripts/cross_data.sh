#!/usr/bin/env bash
# How does training on one data set affect another? Scores the untrained model, the model trained on texts and the model trained on
# instructions on held-out records of both; see the per-file rows in the report.
# usage: scripts/cross_data.sh MODEL TEXTS TEXTS_TEST INSTRUCTIONS INSTRUCTIONS_TEST [options of ablate]
set -euo pipefail
if (( $# < 5 )); then sed -n 's/^# usage:/usage:/p' "$0" >&2; exit 2; fi
[ -e "$1" ] && model=$(realpath "$1") || model=$1
mapfile -t files < <(realpath "${@:2:4}")
mkdir -p runs
root=$PWD/runs
cat > "$root/cross_data.yaml" <<YAML
question: What does training on one data set do to the loss on another?
base: configs/sft/qwen2.5-0.5b_lora_output_only.yaml
arms:
  untrained: {data.train: "${files[2]}", model.optimizer.lr: 1.0e-30}
  trained on texts: {data.train: "${files[0]}", data.mask: whole_sequence}
  trained on instructions: {data.train: "${files[2]}", data.mask: output_only}
seeds: [0, 1, 2]
budget: {equal: steps, amount: 100}
settings:
  data.val: ["${files[1]}", "${files[3]}"]
  data.test: ["${files[1]}", "${files[3]}"]
primary: output_only
YAML
cd "$(dirname "$0")/.."
exec python -m lit_sft ablate --config "$root/cross_data.yaml" --root "$root" \
  --set "model.backbone.pretrained=$model" "${@:6}"
