"""What devices tell: kept on the device until the controller has it on its disk, once.

`spool`, `uplink`, `collect` and what they use run on the device (the standard library and msgspec);
`ingest`, `store`, `live`, `drift` and the exports run beside the controller.
"""
