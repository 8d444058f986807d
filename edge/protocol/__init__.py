"""What devices and controllers say to each other: names, topics, messages, signatures' envelope.

Pure, and imported by both sides: the standard library and msgspec, nothing else.
"""
