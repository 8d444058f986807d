"""The small runtime: serves circuits of few qubits in plain Python, without numpy or onnxruntime.

service.py   the routes: what is answered, and what is counted
reading.py   requests from a connection
worker.py    the process, by the contract that workers have with their supervisor
"""
