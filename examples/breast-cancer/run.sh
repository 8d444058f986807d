#!/usr/bin/env bash
# Two versions of an XGBoost model: the second takes the traffic, then the first has it back.
source "$(dirname "$0")/../common.sh"

compare() {
  fieldpost score tumours -d "$work/$1.request.json" >"$work/answers.json"
  python - "$work" "$1" <<'PY'
import json, sys
answers = json.load(open(f"{sys.argv[1]}/answers.json"))["predictions"]
expected = json.load(open(f"{sys.argv[1]}/{sys.argv[2]}.expected.json"))
assert answers == expected, "the deployment answers otherwise than the model in process"
print(f"{len(answers)} answers over HTTP, all equal to those of {sys.argv[2]} in process")
PY
}

python train.py "$work/small.ubj" 5
python train.py "$work/large.ubj" 80
fieldpost model register tumours "$work/small.ubj" --tag rounds=5
fieldpost model register tumours "$work/large.ubj" --tag rounds=80
fieldpost model diff tumours:1 tumours:2
fieldpost package build tumours:1
fieldpost package build tumours:2
fieldpost deploy tumours --package tumours:1; started+=(tumours)
compare small
fieldpost deploy tumours --package tumours:2
compare large
fieldpost deployment rollback tumours
compare small
fieldpost deployment show tumours
