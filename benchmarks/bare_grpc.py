"""The limit sketch for gRPC: one `grpc.aio` handler, the model, and nothing else.

    python -m benchmarks.bare_grpc MODEL.onnx PORT

No limits, no errors, no metadata, no batches: what is left is the price of the library.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
import numpy as np
import onnxruntime as ort

from serve.server.grpc.messages import ModelInferRequest, ModelInferResponse

_DATATYPES = {"float32": "FP32", "int64": "INT64"}


def _handler(session: ort.InferenceSession) -> grpc.GenericRpcHandler:
    [given] = session.get_inputs()
    names = [output.name for output in session.get_outputs()]

    async def infer(request: ModelInferRequest, _context: grpc.aio.ServicerContext) -> object:
        tensor = request.inputs[0]
        array = np.frombuffer(request.raw_input_contents[0], np.float32)
        outputs = session.run(names, {given.name: array.reshape(tuple(tensor.shape))})
        response = ModelInferResponse(model_name=request.model_name, model_version="1")
        for name, output in zip(names, outputs, strict=True):
            datatype = _DATATYPES[output.dtype.name]
            response.outputs.add(name=name, datatype=datatype, shape=output.shape)
            response.raw_output_contents.append(output.tobytes())
        return response

    method = grpc.unary_unary_rpc_method_handler(
        infer, ModelInferRequest.FromString, ModelInferResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler(
        "inference.GRPCInferenceService", {"ModelInfer": method}
    )


async def _serve(model: str, port: int) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    server.add_generic_rpc_handlers((_handler(ort.InferenceSession(model, options)),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
