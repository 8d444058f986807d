"""The controller: records of the fleet, what each device is to run, rollouts in waves.

Pure, from the bottom: `conditions`, `entities`, `targeting`, `waves`, `rollouts`. With I/O:
`tables`, `rows` and `records` (the workspace's database), `ledger` (of the one that leads),
`broker` (MQTT), `http` (blobs and metadata), `controller`.
"""
