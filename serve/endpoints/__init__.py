"""Endpoints: a stable URL in front of one or more deployments.

Bottom up: `traffic`, `routing` and `promotion` are pure; `front/` is the process that answers on
this machine, `daemon` and `conductor` keep it and lead promotions; `kubernetes` renders the same
wishes as objects of a cluster; `service` is what the workspace calls.
"""
