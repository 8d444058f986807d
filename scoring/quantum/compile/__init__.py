"""From a circuit to matrices: what can be left out, joined and multiplied before a row is seen.

`program` turns the blocks of a circuit's light cone into small real matrices, `folding` multiplies
them all into one, `choose` decides between the two and says why, `compiler` is the way in. Both
forms run in numpy here, and as ONNX (`scoring.quantum.onnx_export`).
"""
