#!/usr/bin/env bash
# Does bf16 or fp16, mixed or pure, change what is learnt? Needs a GPU.
# usage: scripts/precision.sh MODEL TRAIN [options of ablate, such as --jobs 2 --dry-run --set data.max_length=512]
exec "$(dirname "$0")/run_study.sh" precision "$@"
