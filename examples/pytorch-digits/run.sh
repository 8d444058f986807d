#!/usr/bin/env bash
# A PyTorch exported program, told by its content and served by PyTorch itself.
source "$(dirname "$0")/../common.sh"

python train.py "$work"
fieldpost model register digits "$work/digits.pt2" --tag framework=pytorch
fieldpost model show digits
fieldpost serve digits --port 0 --ready-file "$work/url" &
server=$!
while [ ! -s "$work/url" ]; do kill -0 $server; sleep 0.1; done
fieldpost score "$(cat "$work/url")" -d "$work/request.json" >"$work/answers.json"
kill $server && wait $server || true
python - "$work" <<'PY'
import json, sys
scores = json.load(open(f"{sys.argv[1]}/answers.json"))["predictions"]
answers = [max(range(10), key=row.__getitem__) for row in scores]
expected = json.load(open(f"{sys.argv[1]}/expected.json"))
assert answers == expected, "the server answers otherwise than the network in process"
print(f"{len(answers)} answers over HTTP, all equal to those in process")
PY
