#!/usr/bin/env bash
# After how many epochs does a model overfit? One long run, validated twice an epoch; a table and curves say which step was best.
# usage: scripts/overfitting.sh MODEL TRAIN [options of fit]
set -euo pipefail
if (( $# < 2 )); then sed -n 's/^# usage:/usage:/p' "$0" >&2; exit 2; fi
exec python -m lit_sft fit --config "$(dirname "$0")/../configs/sft/qwen2.5-0.5b_full_output_only.yaml" --run.name overfitting \
  --model.backbone.pretrained "$1" --data.train "$2" --data.template auto --trainer.max_epochs 5 \
  --trainer.val_check_interval 0.5 "${@:3}"
