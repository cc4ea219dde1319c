"""Makes the small tokenizers of this folder and lines.jsonl, what Hugging Face `tokenizers` 0.23 answers for them:
python3 make_small.py.  They are trained on the texts of ../tokenizers/minimind.jsonl. Each shows a way to write a
tokenizer.json: flags of added tokens, steps of pre-tokenizers, SentencePiece-style normalizers, post-processors.
"""
import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

FOLDER = pathlib.Path(__file__).parent
rows = [json.loads(x) for x in (FOLDER / "../tokenizers/minimind.jsonl").read_text().splitlines()]
TEXTS = list(dict.fromkeys(r["text"] for r in rows if not r["kind"].startswith("row:") and len(r["text"]) < 120))[::4]
CORPUS = list(dict.fromkeys(r["text"] for r in rows))
EXTRA = ["a <m> b", "x<m>y", "  <left>  z", "z  <right>  \n z", "<left><right>", "<right>  <left>", "word<word>word", "a <word> b", "<word>", "<word>é",
         "é<word>", "_<word>", "cafe\u0301<nrm>e\u0301", "e\u0301x", "<nrm\u00e9>", "<nrme\u0301>", "<s>", "<s> a </s>", " <s>  a", "\u2581\u2581x\u2581 y", "\u2581",
         "tab\there", "12345 3.14 \u0663\u0664\u0665", "don't WON'T it's", "x_y,,,;z!!", "\u4f60\u597d\u4e16\u754c", "\U0001f600\U0001f601", "\u00e9\u00e9 \u00e9",
         "   lead", "trail   ", "a  b   c", "\n\n a\n  b", "q\u0001\u001dz", "<0x41>", "A<0x41>B", "\ud55c\uae00 \u1112\u1161\u11ab"]
TOKENS = [AddedToken("<s>", special=True, normalized=False), AddedToken("</s>", special=True, normalized=False),
          AddedToken("<m>", special=False, normalized=False), AddedToken("<left>", special=True, lstrip=True, normalized=False),
          AddedToken("<right>", special=True, rstrip=True, normalized=False), AddedToken("<word>", special=False, single_word=True, normalized=False),
          AddedToken("<nrm\u00e9>", special=False, normalized=True), AddedToken("    ", special=False, normalized=True),
          AddedToken("<nrm>", special=True, lstrip=True, rstrip=True, normalized=False)]


def byte_level(name, pre, normalizer=None, post=None, ignore_merges=False, tokens=TOKENS):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    t.pre_tokenizer, t.decoder = pre, decoders.ByteLevel()
    if normalizer:
        t.normalizer = normalizer
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=700, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return finish(name, t, post, tokens)


def sentence_piece(name, normalizer, pre, decoder, byte_fallback=True, fuse=True, post=None, tokens=TOKENS):
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=byte_fallback, fuse_unk=fuse))
    t.normalizer, t.decoder = normalizer, decoder
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    first = ["<unk>"] + ([f"<0x{b:02X}>" for b in range(256)] if byte_fallback else [])
    t.train_from_iterator([x.replace(" ", "\u2581") for x in CORPUS if x.isascii()], trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=first))
    data = json.loads(t.to_str())
    data["added_tokens"] = [a for a in data["added_tokens"] if a["content"] == "<unk>"]
    t = Tokenizer.from_str(json.dumps(data))
    if pre is None:
        data = json.loads(t.to_str())
        data["pre_tokenizer"] = None
        t = Tokenizer.from_str(json.dumps(data))
    else:
        t.pre_tokenizer = pre
    return finish(name, t, post, tokens)


def finish(name, t, post, tokens):
    for token in tokens:
        (t.add_special_tokens if token.special else t.add_tokens)([token])
    if post:
        t.post_processor = processors.TemplateProcessing(single=post, special_tokens=[(x, t.token_to_id(x)) for x in ("<s>", "</s>")])
    (FOLDER / name).mkdir(exist_ok=True)
    (FOLDER / name / "tokenizer.json").write_text(json.dumps(json.loads(t.to_str()), ensure_ascii=False, separators=(",", ":")))
    return name, t


P, N = pre_tokenizers, normalizers
LLAMA = N.Sequence([N.Prepend("\u2581"), N.Replace(" ", "\u2581")])
LLAMA_DECODER = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
GEMMA_DECODER = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
RAW = P.ByteLevel(add_prefix_space=False, use_regex=False)
ALL = [
    byte_level("flags", P.ByteLevel(add_prefix_space=False), N.NFC(), "<s> $A </s>"),
    byte_level("digits", P.Sequence([P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False)]), N.NFKC()),
    byte_level("steps", P.Sequence([P.Split(Regex(r"\p{L}+|\s+"), "isolated"), P.Digits(individual_digits=False), P.Punctuation("contiguous"), RAW]), N.NFD(), "<s> $A", True),
    byte_level("previous", P.Sequence([P.Split(Regex("[ ]"), "merged_with_previous"), P.Split("'", "merged_with_next"), P.Split(",", "removed"), RAW])),
    byte_level("prefix", P.ByteLevel(add_prefix_space=True), tokens=TOKENS[:4]),
    byte_level("inverted", P.Sequence([P.Split(Regex(r"[a-z]+|[^a-z]+?"), "removed", invert=True), RAW])),
    sentence_piece("llama", LLAMA, None, LLAMA_DECODER, post="<s> $A", tokens=TOKENS[:6] + TOKENS[8:]),
    sentence_piece("gemma", N.Replace(" ", "\u2581"), P.Split(" ", "merged_with_previous"), GEMMA_DECODER, tokens=TOKENS[:5]),
    sentence_piece("metaspace_first", N.NFKC(), P.Metaspace(prepend_scheme="first", split=True), decoders.Metaspace(prepend_scheme="first"), False, True, tokens=TOKENS[:6]),
    sentence_piece("metaspace_always", N.NFC(), P.Metaspace(prepend_scheme="always", split=False), decoders.Metaspace(prepend_scheme="always"), False, False, tokens=TOKENS[:6]),
]
with open(FOLDER / "lines.jsonl", "w") as out:
    for name, t in ALL:
        for text in EXTRA + TEXTS:
            for special in (True, False) if "<" in text else (True,):
                t.encode_special_tokens = not special
                ids = t.encode(text, add_special_tokens=special).ids
                t.encode_special_tokens = False
                decoded = t.decode(ids, skip_special_tokens=False)
                row = {"tokenizer": name, "text": text, "special": special, "ids": ids, **({"decoded": decoded} if decoded != text else {})}
                out.write(json.dumps(row, separators=(",", ":")) + "\n")
