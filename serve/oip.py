"""A client of servers that speak the Open Inference Protocol, over HTTP or gRPC.

Ours, Triton and KServe alike: it is tritonclient with arrays in and arrays out, datatypes taken
from the model, retries where waiting helps, and errors as everywhere here. It needs the extra
`triton`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import numpy as np
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from scoring.errors import (
    DeadlineExceededError,
    FieldpostError,
    ForbiddenError,
    InputError,
    MissingDependencyError,
    OverloadedError,
    RateLimitedError,
    ScoringFailedError,
    TargetError,
    UnauthorizedError,
    UnknownInputError,
    UnknownModelError,
    UnreachableError,
    UsageError,
    WrongShapeError,
    WrongTypeError,
)
from serve import trust

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

_SCHEMES = {"http": False, "https": True, "grpc": False, "grpcs": True}
_ERRORS: dict[str, type[FieldpostError]] = {
    "400": InputError,
    "401": UnauthorizedError,
    "403": ForbiddenError,
    "404": UnknownModelError,
    "413": InputError,
    "429": RateLimitedError,
    "503": OverloadedError,
    "504": DeadlineExceededError,
    "StatusCode.INVALID_ARGUMENT": InputError,
    "StatusCode.UNAUTHENTICATED": UnauthorizedError,
    "StatusCode.PERMISSION_DENIED": ForbiddenError,
    "StatusCode.NOT_FOUND": UnknownModelError,
    "StatusCode.RESOURCE_EXHAUSTED": OverloadedError,
    "StatusCode.UNAVAILABLE": UnreachableError,
    "StatusCode.DEADLINE_EXCEEDED": DeadlineExceededError,
}


class OipClient:
    """Scores arrays with the models of one server. Not for several threads at once.

    Args:
        url: `http://`, `https://`, `grpc://` or `grpcs://`, host and port.
        timeout_s: For one answer, the waiting in retries not counted.
        retry_s: How long a refused connection, a 503 or a 429 is tried again.
        headers: Sent with every request, such as `authorization`.
        ca: A PEM file of the authorities that are believed; empty for the usual ones.
        certificate: A PEM file of the server's own certificate, where it is at hand: believed
            where no authorities are given.

    Raises:
        UsageError: The URL has another scheme, or no host.
        MissingDependencyError: The extra `triton` is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 60.0,
        retry_s: float = 5.0,
        headers: Mapping[str, str] | None = None,
        ca: str = "",
        certificate: str = "",
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not parts.netloc:
            raise UsageError(
                f"{url!r} is no URL of an inference server.",
                hint="Give http://, https://, grpc:// or grpcs://, a host and a port.",
                where="url",
            )
        self.url = url
        self._module = _tritonclient(parts.scheme)
        self._retry_s = retry_s
        self._headers = dict(headers or {})
        self._tensors: dict[tuple[str, str], dict[str, Any]] = {}
        self._is_grpc = parts.scheme.startswith("grpc")
        self._limits = {"client_timeout": timeout_s} if self._is_grpc else {}
        address = parts.netloc + ("" if self._is_grpc else parts.path.rstrip("/"))
        options: dict[str, Any] = {} if self._is_grpc else {"network_timeout": timeout_s}
        if self._is_grpc and (ca or certificate):
            options["root_certificates"] = ca or certificate
        elif ca or certificate:
            made = trust.context(ca, certificate)
            # Without this argument the client would add the usual authorities.
            options |= {"ssl_context_factory": lambda cafile: made, "insecure": not ca}  # noqa: ARG005
        self._client = self._module.InferenceServerClient(
            address, ssl=_SCHEMES[parts.scheme], **options
        )

    def score(
        self,
        name: str,
        inputs: Mapping[str, ArrayLike],
        *,
        version: str = "",
        outputs: Sequence[str] = (),
    ) -> dict[str, NDArray[Any]]:
        """Scores arrays with a model.

        Args:
            name: Of the model.
            inputs: By name; of the model's shapes. Numbers are cast to the model's datatypes where
                the kind is the same (floats to floats, whole numbers to floats); strings are `str`.
            version: Of the model; empty for the one that the server chooses.
            outputs: Their names; empty for all.

        Returns:
            The outputs by name. Strings are object arrays of `str`.

        Raises:
            InputError: The server refuses the request, or an input does not fit the model.
            UnknownModelError: The server has no such model.
            OverloadedError: It has no room or the model is not loaded, still after the retries.
            ScoringFailedError: It failed.
            UnreachableError: Nothing answers there, still after the retries.
        """
        tensors = self._described(name, version)
        sent = [self._input(tensors, key, value) for key, value in inputs.items()]
        wanted = [self._module.InferRequestedOutput(output) for output in outputs]
        result = self._ask(
            lambda: self._client.infer(
                name, sent, version, wanted or None, headers=self._headers, **self._limits
            )
        )
        names = outputs or [output["name"] for output in self._document(result)["outputs"]]
        return {output: _text(result.as_numpy(output)) for output in names}

    def metadata(self, name: str, *, version: str = "") -> dict[str, Any]:
        """A model's inputs and outputs, as the protocol has them.

        Raises:
            UnknownModelError: The server has no such model.
            UnreachableError: Nothing answers there, still after the retries.
        """
        options = {"as_json": True} if self._is_grpc else {}
        found = self._ask(
            lambda: self._client.get_model_metadata(name, version, self._headers, **options)
        )
        return dict(found)

    def models(self) -> list[str]:
        """The names of the models that are ready, each once.

        Raises:
            UnreachableError: Nothing answers there, still after the retries.
        """
        options = {"as_json": True} if self._is_grpc else {}
        found: Any = self._ask(
            lambda: self._client.get_model_repository_index(self._headers, **options)
        )
        entries = found.get("models", []) if self._is_grpc else found
        ready = [entry["name"] for entry in entries if entry.get("state", "READY") == "READY"]
        return list(dict.fromkeys(ready))

    def ready(self, name: str = "", *, version: str = "") -> bool:
        """Whether the server takes requests, or one of its models."""
        try:
            if name:
                return bool(self._client.is_model_ready(name, version, self._headers))
            return bool(self._client.is_server_ready(self._headers))
        except Exception as error:
            raised = self._translated(error)
            if isinstance(raised, UnreachableError | OverloadedError | UnknownModelError):
                return False
            raise raised from error

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _described(self, name: str, version: str) -> dict[str, Any]:
        """The datatypes of a model's inputs, asked for once."""
        found = self._tensors.get((name, version))
        if found is None:
            document = self.metadata(name, version=version)
            found = {tensor["name"]: tensor["datatype"] for tensor in document["inputs"]}
            self._tensors[name, version] = found
        return found

    def _input(self, tensors: Mapping[str, str], name: str, value: ArrayLike) -> Any:
        datatype = tensors.get(name)
        if datatype is None:
            raise UnknownInputError(
                f"The model has no input {name!r}.",
                hint=f"Its inputs are {', '.join(tensors)}.",
                where=name,
            )
        array = _cast(value, datatype, name)
        tensor = self._module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        return tensor

    def _document(self, result: Any) -> dict[str, Any]:
        return dict(result.get_response(as_json=True) if self._is_grpc else result.get_response())

    def _ask(self, call: Callable[[], Any]) -> Any:
        retrying = Retrying(
            retry=retry_if_exception(_is_retryable),
            wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05),
            stop=stop_after_delay(self._retry_s),
            reraise=True,
        )
        return retrying(self._once, call)

    def _once(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> FieldpostError:
        from tritonclient.utils import InferenceServerException  # noqa: PLC0415 - an extra

        if isinstance(error, InferenceServerException):
            kind = _ERRORS.get(str(error.status()), ScoringFailedError)
            if kind is UnreachableError:
                return UnreachableError(f"{self.url}: {error.message()}")
            return kind(str(error.message()))
        if isinstance(error, ConnectionRefusedError):
            return UnreachableError(f"Nothing answers at {self.url}: {error}.")
        return TargetError(f"The request to {self.url} failed: {error!r}.")


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, FieldpostError) and error.retryable


def _tritonclient(scheme: str) -> Any:
    try:
        if scheme.startswith("grpc"):
            import tritonclient.grpc as module  # noqa: PLC0415 - an extra
        else:
            import tritonclient.http as module  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            "The client of inference servers needs tritonclient.",
            hint="Install 'fieldpost[triton]'.",
        ) from error
    return module


def _cast(value: ArrayLike, datatype: str, name: str) -> NDArray[Any]:
    """An array of a datatype's dtype, without changing what the numbers are."""
    from tritonclient.utils import triton_to_np_dtype  # noqa: PLC0415 - an extra

    try:
        array = np.asarray(value)
    except ValueError as error:
        raise WrongShapeError(f"The input {name!r} is no array: {error}.", where=name) from None
    if datatype == "BYTES":
        return array.astype(object)
    wanted = np.dtype(triton_to_np_dtype(datatype))
    try:
        return array.astype(wanted, casting="same_kind")
    except TypeError:
        raise WrongTypeError(
            f"The input {name!r} is {array.dtype}; the model takes {datatype}.",
            hint=f"Convert it to {wanted}.",
            where=name,
        ) from None


def _text(array: NDArray[Any]) -> NDArray[Any]:
    """Strings, which come as bytes."""
    if array.dtype.kind != "O":
        return array
    found = np.empty(array.size, dtype=object)
    found[:] = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in array.ravel()]
    return found.reshape(array.shape)
