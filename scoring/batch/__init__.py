"""Batch scoring beside the model: datasets in, shard by shard, one result for each row out.

What is here runs on this machine and inside an image alike, and needs no more than a server does;
pyarrow and fsspec are imported where a dataset wants them.
"""
