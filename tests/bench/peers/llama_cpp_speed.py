"""llama.cpp by its Python binding: a prompt of 512 random tokens, then 64 tokens greedily. One JSON object a line: median of five.

Only the library's own decoding is timed; choosing the token is left out. --convert TYPE first makes a file of another type from
the model (once).
"""
import argparse
import ctypes
import json
import os
import random
import statistics
import time

import llama_cpp
import numpy


def convert(source, target, type_name):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + type_name)
    parameters.allow_requantize = True
    temporary = target + ".part"
    if llama_cpp.llama_model_quantize(source.encode(), temporary.encode(), ctypes.byref(parameters)) != 0:
        raise SystemExit(f"{source} could not be converted to {type_name}")
    os.replace(temporary, target)


def decode(context, tokens):
    array = (llama_cpp.llama_token * len(tokens))(*tokens)
    status = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(tokens)))
    if status != 0:
        raise SystemExit(f"llama_decode: {status}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--convert")
    parser.add_argument("--converted")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--generate-tokens", type=int, default=64)
    arguments = parser.parse_args()
    path = arguments.model
    if arguments.convert:
        path = arguments.converted
        if not os.path.exists(path):
            convert(arguments.model, path, arguments.convert)

    model = llama_cpp.Llama(path, n_ctx=arguments.prompt_tokens + arguments.generate_tokens + 8, n_batch=512, n_ubatch=512,
                            n_threads=arguments.threads, n_threads_batch=arguments.threads, verbose=False)
    context, vocabulary = model.ctx, model.n_vocab()
    chance = random.Random(0)
    prompt_rates, generate_rates = [], []
    for run in range(6):
        model.reset()
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        tokens = [chance.randrange(vocabulary) for _ in range(arguments.prompt_tokens)]
        start = time.perf_counter()
        decode(context, tokens)
        logits = llama_cpp.llama_get_logits_ith(context, -1)  # waits for the result
        prompt_seconds = time.perf_counter() - start
        seconds = 0.0
        for _ in range(arguments.generate_tokens):
            token = int(numpy.ctypeslib.as_array(logits, (vocabulary,)).argmax())
            start = time.perf_counter()
            decode(context, [token])
            logits = llama_cpp.llama_get_logits_ith(context, -1)
            seconds += time.perf_counter() - start
        if run > 0:  # the first one touches the memory
            prompt_rates.append(arguments.prompt_tokens / prompt_seconds)
            generate_rates.append(arguments.generate_tokens / seconds)
    for work, rates in (("prompt_512", prompt_rates), ("generate", generate_rates)):
        print(json.dumps({"model": arguments.name, "work": work, "value": statistics.median(rates), "unit": "tokens/s",
                          "details": {"file": os.path.basename(path), "best": max(rates)}}))


main()
