#!/usr/bin/env bash
# How much training data is enough?
# usage: scripts/data_size.sh MODEL TRAIN [options of ablate, such as --jobs 2 --dry-run --set data.max_length=512]
exec "$(dirname "$0")/run_study.sh" data_size "$@"
