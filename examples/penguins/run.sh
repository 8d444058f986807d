#!/usr/bin/env bash
# From a table with words and gaps in it to answers over HTTP.
source "$(dirname "$0")/../common.sh"

python train.py "$work"
fieldpost model register penguins "$work/penguins.skops" --sample "$work/sample.csv" --tag data=palmer \
  --trust-type sklearn.tree._tree.Tree --trust-type numpy.dtype
fieldpost model show penguins
fieldpost package build penguins
fieldpost deploy penguins --package penguins; started+=(penguins)
fieldpost score penguins -d "$work/held-out.json" >"$work/answers.json"
fieldpost score penguins -d '{"data": [{"island": "Biscoe", "sex": "female", "bill_length_mm": 46.1,
  "bill_depth_mm": 13.2, "flipper_length_mm": 211, "body_mass_g": null}]}'
python - "$work" <<'PY'
import json, sys
answers = json.load(open(f"{sys.argv[1]}/answers.json"))["predictions"]
expected = json.load(open(f"{sys.argv[1]}/expected.json"))
assert answers == expected, "the deployment answers otherwise than the model in process"
print(f"{len(answers)} answers over HTTP, all equal to those in process")
PY
