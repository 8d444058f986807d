"""The Open Inference Protocol, version 2, over REST (docs/reference/open-inference-protocol.md).

datatypes.py       the protocol's datatypes beside ours and numpy's
tensors.py         binary tensors: bytes to arrays and back (shared with gRPC)
inputs.py          one input of a model: what a tensor has to be, from JSON or from bytes
fields.py          the fields of JSON objects
plan.py            what the JSON of an infer request says
request.py         the body of an infer request
quick.py           the shortest way through the most frequent one
classification.py  the top classes of an output
answers.py         the body of an infer answer
compression.py     compressed answers
endpoint.py        all of that, made once for a model
calls.py           one infer request on its way through the server
metadata.py        the documents: server, models, configuration, statistics
errors.py          errors in the protocol's shape
openapi.py         the description of these routes
service.py         the routes
"""
