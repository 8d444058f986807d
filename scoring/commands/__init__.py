"""What commands of every part share: groups that import late, common options, what is printed.

Of the command line alone: it needs click, and nothing that runs beside a model imports it.
"""


class OutputError(Exception):
    """What a command says cannot be written to stdout: its disk is full, say."""
