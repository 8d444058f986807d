"""Requests that are answered later: `Prefer: respond-async`, and `/jobs`.

`gate` is all that a server imports until the first such request. `service` speaks HTTP, `runner`
runs jobs on the event loop, `store` keeps them on disk (docs/adr/0042), `records` says what.
"""
