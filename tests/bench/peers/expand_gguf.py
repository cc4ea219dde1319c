"""expand_gguf.py FILE.gguf FOLDER: the model as a folder of float32 weights, expanded by Transformers' own GGUF reader."""
import os
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

source, folder = sys.argv[1:]
parent, name = os.path.split(os.path.abspath(source))
tokenizer = AutoTokenizer.from_pretrained(parent, gguf_file=name)
model = AutoModelForCausalLM.from_pretrained(parent, gguf_file=name, dtype=torch.float32)
# The weights are plain numbers now, whatever the file's were.
model.is_quantized, model.hf_quantizer = False, None
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config
model.save_pretrained(folder)
tokenizer.save_pretrained(folder)
