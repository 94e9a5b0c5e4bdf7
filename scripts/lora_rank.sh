#!/usr/bin/env bash
# Which LoRA rank, with constant alpha/r and with constant alpha?
# usage: scripts/lora_rank.sh MODEL TRAIN [options of ablate, such as --jobs 2 --dry-run --set data.max_length=512]
exec "$(dirname "$0")/run_study.sh" lora_rank "$@"
