#!/usr/bin/env bash
# Which layers should LoRA adapt?
# usage: scripts/lora_targets.sh MODEL TRAIN [options of ablate, such as --jobs 2 --dry-run --set data.max_length=512]
exec "$(dirname "$0")/run_study.sh" lora_targets "$@"
