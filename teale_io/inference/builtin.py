"""The tiny model that comes with the package: it makes a first answer possible with nothing downloaded.

It recites what functions of Python's standard library do, declines what it does not know, and is wrong outside
that. Say so wherever it is shown.
"""

from importlib.resources import files
from typing import Final

from teale_io.inference.llama import LlamaBackend
from teale_io.inference.worker_protocol import LlamaParameters

TINY_MODEL: Final = "teale-tiny"
TINY_CONTEXT: Final = 256


def builtin_backend(*, silence: float = 120) -> LlamaBackend:
    """Return the backend of the built-in model; without llama-cpp-python its `problem` says how to install it.

    `silence` is that of `LlamaBackend`.
    """
    path = files("teale_io.inference").joinpath("tiny.gguf")
    # One thread: with two, the work of one token is smaller than the cost of handing it out.
    return LlamaBackend(
        LlamaParameters(
            path=str(path), name=TINY_MODEL, context=TINY_CONTEXT, n_threads=1, n_threads_batch=1, gpu_layers=0
        ),
        silence=silence,
    )
