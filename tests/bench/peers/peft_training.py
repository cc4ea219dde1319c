"""Adapter training with Transformers and PEFT: rank 16 on all linear projections, eight padded GSM8K rows a step, prompt not supervised.

Prints one JSON object; the first step is not timed. Tokens are those of the rows, without the padding.
"""
import argparse
import json
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

IGNORED = -100


def read_examples(path, tokenizer, count, max_length):
    examples = []
    with open(path) as lines:
        for line in lines:
            if len(examples) == count:
                break
            row = json.loads(line)
            prompt = tokenizer(row["question"] + "\n", add_special_tokens=False).input_ids
            answer = tokenizer(row["answer"], add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
            ids, labels = prompt + answer, [IGNORED] * len(prompt) + answer
            examples.append((ids[:max_length], labels[:max_length]))
    return examples


def padded(batch, filler):
    width = max(len(ids) for ids, _ in batch)

    def stack(rows, value):
        return torch.tensor([row + [value] * (width - len(row)) for row in rows])

    return {"input_ids": stack([ids for ids, _ in batch], filler), "labels": stack([labels for _, labels in batch], IGNORED),
            "attention_mask": stack([[1] * len(ids) for ids, _ in batch], 0)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    base = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=getattr(torch, arguments.dtype))
    model = get_peft_model(base, LoraConfig(r=arguments.rank, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
    examples = read_examples(arguments.rows, tokenizer, arguments.steps * arguments.batch_size, arguments.max_length)
    model.train()

    losses, tokens, seconds = [], 0, 0.0
    for step in range(arguments.steps):
        batch = examples[step * arguments.batch_size:(step + 1) * arguments.batch_size]
        inputs = padded(batch, tokenizer.eos_token_id)
        start = time.perf_counter()
        loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step > 0:
            seconds += time.perf_counter() - start
            tokens += sum(len(ids) for ids, _ in batch)
        losses.append(loss.item())
    print(json.dumps({"model": "smollm2", "work": "lora_gsm8k", "value": tokens / seconds, "unit": "tokens/s",
                      "details": {"losses": losses}}))


main()
