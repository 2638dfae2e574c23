#!/usr/bin/env bash
# What action.yml runs: the whole job, its verdict as an annotation, and the report as the job's summary.
# Reads RECIPE, ARGUMENTS, OUTPUT and INCONCLUSIVE; leaves with yoloquant's own exit code.
set -uo pipefail
words=()
[ -n "${RECIPE:-}" ] && words+=("$RECIPE")
read -r -a more <<< "${ARGUMENTS:-}"
yoloquant run ${words[@]+"${words[@]}"} ${more[@]+"${more[@]}"} output="$OUTPUT" inconclusive="${INCONCLUSIVE:-3}"
code=$?
echo "code=$code" >> "${GITHUB_OUTPUT:-/dev/null}"
case $code in
  0) echo "::notice title=yoloquant::the gate lets these exports pass" ;;
  1) echo "::error title=yoloquant::a limit of the gate was missed" ;;
  2) echo "::error title=yoloquant::bad input; nothing was judged" ;;
  3) echo "::warning title=yoloquant::inconclusive: too few images to tell" ;;
  4) echo "::error title=yoloquant::a target could not be built or run" ;;
  *) echo "::error title=yoloquant::ended with exit code $code" ;;
esac
if [ -f "$OUTPUT/report/report.md" ]; then cat "$OUTPUT/report/report.md" >> "${GITHUB_STEP_SUMMARY:-/dev/null}"; fi
exit $code
