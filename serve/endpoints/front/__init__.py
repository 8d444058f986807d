"""The front: a process that takes an endpoint's requests and hands them to deployments.

Bottom up: `config`, `heads`, `stats` are pure; `backend` knows one deployment and its connections,
`upstream` is one of those, `exchange` one request on its way, `downstream` one client; `shadowing`
sends copies, `tunnel` passes HTTP/2 through; `process` is the worker.
"""
