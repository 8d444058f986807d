"""Triton's model repositories as a format: models are registered from them, packages become them.

places.py          which names mean something of Triton's
description.py     `config.pbtxt`, read and written
importing.py       models of a repository
exporting.py       a package's model as a repository
"""
