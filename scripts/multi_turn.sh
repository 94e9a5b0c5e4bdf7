#!/usr/bin/env bash
# How should conversations be supervised: the last answer, one sample per answer, or every answer?
# usage: scripts/multi_turn.sh MODEL TRAIN [options of ablate, such as --jobs 2 --dry-run --set data.max_length=512]
if (( $# < 2 )); then sed -n 's/^# usage:/usage:/p' "$0" >&2; exit 2; fi
exec "$(dirname "$0")/run_study.sh" multi_turn_lora "$@" --set model.backbone.lora.modules_to_save=null
