"""Metrics, traces and the access log of a server; `telemetry.Telemetry` is the way in."""
