#!/usr/bin/env bash
# What action.yml runs: the whole job, the comparison with the last release, each verdict as an annotation, and the reports
# as the job's summary. Reads RECIPE, ARGUMENTS, OLD, COMPARE_ARGUMENTS, OUTPUT and INCONCLUSIVE; leaves with yoloquant's
# own exit code: the run's, or the comparison's where the run passed.
set -uo pipefail

annotate() { # title code folder
  case $2 in
    # The exit code of an inconclusive verdict is the caller's choice, and may be that of a pass.
    0) if undecided "$3"; then echo "::warning title=$1::inconclusive: too few images to tell"
       else echo "::notice title=$1::the gate lets it pass"; fi ;;
    1) echo "::error title=$1::a limit of the gate was missed" ;;
    2) echo "::error title=$1::bad input; nothing was judged" ;;
    3) echo "::warning title=$1::inconclusive: too few images to tell" ;;
    4) echo "::error title=$1::a target could not be built or run" ;;
    *) echo "::error title=$1::ended with exit code $2" ;;
  esac
}

undecided() { # folder
  grep -qs '^### .*yoloquant: INCONCLUSIVE' "$1/report.md"
}

summarize() { # folder
  if [ -f "$1/report.md" ]; then cat "$1/report.md" >> "${GITHUB_STEP_SUMMARY:-/dev/null}"; fi
}

words=()
[ -n "${RECIPE:-}" ] && words+=("$RECIPE")
# Up to the end and not to the first line's: in a workflow arguments often stand one below the other.
read -r -d '' -a more <<< "${ARGUMENTS:-}"
yoloquant run ${words[@]+"${words[@]}"} ${more[@]+"${more[@]}"} output="$OUTPUT" inconclusive="${INCONCLUSIVE:-3}"
code=$?
annotate yoloquant "$code" "$OUTPUT/report"
summarize "$OUTPUT/report"

if [ -n "${OLD:-}" ] && [ -f "$OUTPUT/report/report.md" ]; then
  # Results are kept without masks only: segmentation models are compared as artifacts, which run again.
  new="$OUTPUT"
  [ -f "$OUTPUT/report/results.npz" ] && new="$OUTPUT/report"
  read -r -d '' -a more <<< "${COMPARE_ARGUMENTS:-}"
  yoloquant compare old="$OLD" new="$new" ${more[@]+"${more[@]}"} output="$OUTPUT/compare" inconclusive="${INCONCLUSIVE:-3}"
  compared=$?
  annotate "yoloquant compare" "$compared" "$OUTPUT/compare"
  summarize "$OUTPUT/compare"
  if [ "$code" -eq 0 ]; then code=$compared; fi
fi

echo "code=$code" >> "${GITHUB_OUTPUT:-/dev/null}"
exit "$code"
