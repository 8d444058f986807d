# mypy: ignore-errors
# It runs in the environment of its framework, which this one's type checker does not see.
"""A runtime of MLServer: `mlserver start FOLDER`, with model-settings.json naming this class."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

from benchmarks.peers.model import Model


class Runtime(MLModel):
    async def load(self):
        self.model = Model()
        return True

    async def predict(self, payload):
        rows = NumpyCodec.decode_input(payload.inputs[0])
        label, probabilities = self.model(rows)
        outputs = [
            NumpyCodec.encode_output("label", label),
            NumpyCodec.encode_output("probabilities", probabilities),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
