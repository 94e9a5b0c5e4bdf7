#!/usr/bin/env bash
# How should conversations be supervised: the last answer, one sample an answer, or every answer?
# usage: scripts/multi_turn.sh MODEL TRAIN [options of ablate, such as --jobs 2 --dry-run --set data.max_length=512]
: "${2:?usage: $0 MODEL TRAIN [options of ablate]}"
exec "$(dirname "$0")/run_study.sh" multi_turn_lora "$@" --set model.backbone.lora.modules_to_save=null
