"""Many devices in one process: the agent's own state machine, verification and messages.

What a device would fetch, unpack and run is made up (`effects`), and may fail, be slow or lie
offline as told (`faults`); all else is the code that a real device runs. `device` is one device
apart from any network and any clock; `wire` connects it to a broker on an event loop that all of
them share, `crowd` holds a few thousand of them, `virtual` gives tests hours within milliseconds.
"""
