#!/usr/bin/env bash
# Half-moons of Microsoft's Q# machine-learning library: learned, drawn, compiled, deployed, scored.
source "$(dirname "$0")/../common.sh"

structure="partial-x:0 partial-z:0 partial-x:1 partial-z:1 cyclic-x partial-z:1 partial-x:1"
python prepare.py half-moons.csv "$work"
fieldpost quantum train "$work/train.csv" --structure "$structure" --encoding product \
  --test "$work/test.csv" --seed 7 --out "$work/half-moons"
fieldpost quantum draw "$work/half-moons.circuit.json"
fieldpost quantum compile "$work/half-moons.circuit.json" --sample "$work/train.csv" --label label
fieldpost quantum compile "$work/half-moons.circuit.json" --to qasm
fieldpost model register half-moons "$work/half-moons.circuit.json"
fieldpost package build half-moons
fieldpost deploy half-moons --package half-moons; started+=(half-moons)
fieldpost score half-moons -d "$work/request.json" >"$work/answers.json"
python compare.py "$work/half-moons.circuit.json" "$work/request.json" "$work/answers.json"
