"""HTTP/2 on the server's own port: the Open Inference Protocol over gRPC, and REST for who asks so.

Imported when the first client speaks HTTP/2.

frames.py       frames as bytes, and the faults of those who send them
heads.py        header blocks to requests; blocks that come again are not decoded again
windows.py      what is sent, in the order and the amounts that the peer allows
leaving.py      how streams and connections end
connection.py   one client: frames to streams, under limits
streams.py      what gRPC and REST streams share
rpc.py          one gRPC call, as it comes: who asks, and its messages
replies.py      one gRPC call, as it is answered: messages, and a status at the end
methods.py      what stands behind a method's path
rest.py         one plain request over HTTP/2, handed to the routes
reading.py      gRPC's messages out of a stream of bytes
status.py       errors as gRPC tells them
messages.py     the protocol's messages (*.proto; make_messages.py makes descriptors.py of them)
endpoint.py     infer messages to arrays and back, made once for a model
inference.py    ModelInfer and ModelStreamInfer
metadata.py     what is said of servers and models
health.py       gRPC's health protocol
reflection.py   server reflection
service.py      the methods by their paths
"""
