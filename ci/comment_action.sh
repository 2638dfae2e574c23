#!/usr/bin/env bash
# What action.yml ends with: the reports into comments of the pull request. Reads OUTPUT, NAME and GITHUB_TOKEN. A comment that
# cannot be written, with the token of a fork's pull request for instance, is a warning: the verdict is no worse for it.
set -uo pipefail

write() { # comment report
  [ -f "$2" ] || return 0
  if said=$(YOLOQUANT_COMMENT="$1${NAME:+-$NAME}" python -m yoloquant.report.pull_request "$2" 2>&1); then
    echo "$said"
  else
    echo "::warning title=yoloquant comment::$(tail -n 1 <<< "$said")"
  fi
}

write report "$OUTPUT/report/report.md"
write compare "$OUTPUT/compare/report.md"
