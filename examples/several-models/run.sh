#!/usr/bin/env bash
# Two models behind one port, with keys: asked over three protocols, one of them replaced meanwhile.
source "$(dirname "$0")/../common.sh"

python train.py "$work"
export FIELDPOST_SERVER_API_KEYS="$work/keys.json" FIELDPOST_SERVER_JOBS_DIR="$work/jobs"
FIELDPOST_API_KEY=$(fieldpost key create client)
admin=$(fieldpost key create operator --scope admin)
export FIELDPOST_API_KEY

fieldpost serve --repository "$work/shelf" --port 0 --ready-file "$work/url" &
server=$!
trap 'kill $server 2>/dev/null || true; finish' EXIT
while [ ! -s "$work/url" ]; do kill -0 $server; sleep 0.1; done
url=$(cat "$work/url")

# By name, over JSON, the Open Inference Protocol, gRPC, and as a job.
fieldpost score "$url" --model cancer -d "$work/cancer.json"
fieldpost score "$url" --model cancer -d "$work/cancer.json" --protocol v2
fieldpost score "$url" --model cancer -d "$work/cancer.json" --protocol grpc
fieldpost score "$url" --model wine -d "$work/wine.json" --later >"$work/before.json"

# A better version: laid beside the first one, and loaded while the server answers.
mkdir "$work/shelf/wine/2"
cp "$work/better.skops" "$work/shelf/wine/2/model.skops"
ADMIN_KEY=$admin python - "$url" <<'PY'
import os, sys, urllib.request
load = f"{sys.argv[1]}/v2/repository/models/wine/load"
asked = urllib.request.Request(load, data=b"{}", headers={"x-api-key": os.environ["ADMIN_KEY"]})
print("loaded:", urllib.request.urlopen(asked).status)
PY
fieldpost score "$url" --model wine -d "$work/wine.json" >"$work/after.json"
kill $server && wait $server || true

python - "$work" <<'PY'
import json, sys
read = lambda name: json.load(open(f"{sys.argv[1]}/{name}.json"))
right = read("labels")
def labels(name):
    found = read(name)["predictions"]
    return [row["label"] if isinstance(row, dict) else row for row in found]
def share(found):
    return sum(a == b for a, b in zip(found, right, strict=True)) / len(right)
before, after = labels("before"), labels("after")
assert after == read("expected"), "the server answers otherwise than the model in process"
assert share(after) > share(before)
print(f"right answers: {share(before):.0%} before the swap, {share(after):.0%} after it")
PY
