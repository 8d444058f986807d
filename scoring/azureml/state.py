"""What is one per process, because Azure's contract makes it so.

Attributes:
    raw_http: A `@rawhttp` was met: `run()` gets the HTTP request itself.
    strict: The script is served exactly as by Azure's server.
"""

raw_http: bool = False
strict: bool = False
