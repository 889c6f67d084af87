"""SmolLM2 from the GGUF of its package to the folder that `task: generate` reads: run by `make onnx-model`.

Usage: ``python _convert_smollm2.py GGUF FOLDER``, in an environment with torch, transformers, gguf, accelerate and
onnxruntime-genai. Nothing is fetched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ |= {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def main(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    # Its weights are floats now, and a model that says it is quantised is not saved.
    del model.config.quantization_config
    model.hf_quantizer = None
    with tempfile.TemporaryDirectory() as checkpoint:
        model.save_pretrained(checkpoint)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(checkpoint)
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
        kind = ["-p", "int4", "-e", "cpu", "--extra_options", "hf_token=false"]
        subprocess.run([*builder, "-m", checkpoint, "-o", str(folder), *kind], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
