"""BentoML as a format: its models are registered here, and packages become Bentos.

places.py          which names mean something of BentoML's
importing.py       models of BentoML's store, `.bentomodel` and `.bento` files
exporting.py       a package as a Bento, with BentoML's own builder
building.py        runs that builder, in a process of its own
library.py         BentoML itself, imported when it is needed
service_file.py    the service inside such a Bento; it runs there, beside the package, never here
"""
