#!/usr/bin/env bash
# Which tokens should carry the loss: answers, the whole sequence, or answers and a little of the prompt?
# usage: scripts/loss_masks.sh MODEL TRAIN [options of ablate, such as --jobs 2 --dry-run --set data.max_length=512]
exec "$(dirname "$0")/run_study.sh" loss_masks_lora "$@"
