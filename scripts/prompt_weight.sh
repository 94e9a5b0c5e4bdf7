#!/usr/bin/env bash
# How much weight should prompt tokens have in the loss?
# usage: scripts/prompt_weight.sh MODEL TRAIN [options of ablate, such as --jobs 2 --dry-run --set data.max_length=512]
exec "$(dirname "$0")/run_study.sh" prompt_weight "$@"
