#!/usr/bin/env bash
# Three kinds of wine, told apart by three circuits on four qubits: from a pipeline to a deployment.
source "$(dirname "$0")/../common.sh"

python train.py "$work/request.json" "$work/expected.json"
fieldpost model show wine
fieldpost quantum draw wine --parameters
fieldpost package build wine
fieldpost deploy wine --package wine; started+=(wine)
fieldpost score wine -d "$work/request.json" >"$work/answers.json"
python - "$work" <<'PY'
import json, sys
answers = json.load(open(f"{sys.argv[1]}/answers.json"))
expected = json.load(open(f"{sys.argv[1]}/expected.json"))
difference = max(
    abs(one - other)
    for row, same in zip(answers["probabilities"], expected["probabilities"], strict=True)
    for one, other in zip(row, same, strict=True)
)
assert difference < 1e-12, difference
assert answers["predictions"] == expected["predictions"]
print(f"{len(expected['predictions'])} answers over HTTP, equal to the estimator's: {difference:.1e}")
PY
