"""Packages as a store holds them: the documents that name their parts, read, checked and unpacked.

What builds them stands elsewhere; devices and servers alike take them from here.
"""
