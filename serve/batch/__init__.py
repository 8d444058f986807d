"""Batch scoring: a dataset in, one result for each row out, here or as a job of a cluster."""
