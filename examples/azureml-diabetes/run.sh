#!/usr/bin/env bash
# An Azure ML entry script, unmodified: in the foreground first, then packaged and deployed.
source "$(dirname "$0")/../common.sh"

python train.py "$work"
row='{"data": [[0.038, 0.051, 0.062, 0.022, -0.044, -0.035, -0.043, -0.003, 0.02, -0.018]]}'

# In the foreground, straight from the files.
fieldpost serve score.py --model-dir "$work" --port 0 --ready-file "$work/url" &
server=$!
while [ ! -s "$work/url" ]; do kill -0 $server; sleep 0.1; done
fieldpost score "$(cat "$work/url")" -d "$row"
kill $server && wait $server || true

# As a package: the model registered, the script and its environment beside it.
fieldpost model register diabetes "$work/sklearn_regression_model.pkl" --trust-pickle
fieldpost env register diabetes requirements.txt
fieldpost package build diabetes --script score.py --env diabetes
fieldpost deploy diabetes --package diabetes; started+=(diabetes)
fieldpost score diabetes -d "$row"
fieldpost deployment logs diabetes --tail 5
