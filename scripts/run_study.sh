#!/usr/bin/env bash
# Run a study of configs/ablation/ on your own data and model.
# usage: scripts/run_study.sh STUDY MODEL TRAIN [options of ablate]
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
if (( $# < 3 )); then
  asked=${1:-run_study}
  asked="$here/scripts/${asked%_lora}.sh"
  sed -n 's/^# usage:/usage:/p' "$([ -f "$asked" ] && echo "$asked" || echo "$0")" >&2
  exit 2
fi
study=$1 model=$2 train=$3
shift 3
[ -e "$model" ] && model=$(realpath "$model")
[ -e "$train" ] && train=$(realpath "$train")
root=$PWD/runs
cd "$here"
exec python -m lit_sft ablate --config "configs/ablation/$study.yaml" --root "$root" \
  --set "model.backbone.pretrained=$model" --set model.backbone.config=null --set model.backbone.tokenizer=null \
  --set "data.train=$train" --set data.val=null --set data.test=null --set data.template=auto "$@"
