#!/usr/bin/env python3
"""Writes the files of this folder. Each table has beside it, as <name>.json, the rows that Python's csv module reads from it.
The compressed files hold lines.jsonl, written by Python's gzip and the zstd program (two members and two frames each)."""
import csv, gzip, io, json, os, random, subprocess

here = os.path.dirname(os.path.abspath(__file__))
path = lambda name: os.path.join(here, name)
CELLS = ["", "plain", "a, b", "tab\there", "semi; colon", "pipe | line", 'says "yes"', '"', '""', "two\nlines", "two\r\nlines",
         "\n", " spaces ", "naïve – ü", "日本語", "😀", "1.50", "-1", "it's", "a\\b", ",", ",,", "#", "NULL"]
STYLES = [  # file, delimiter, line end, byte order mark, quoting, line end after the last record
    ("comma.csv", ",", "\r\n", False, csv.QUOTE_MINIMAL, True), ("unix.csv", ",", "\n", False, csv.QUOTE_MINIMAL, True),
    ("mac.csv", ",", "\r", False, csv.QUOTE_ALL, True), ("mark.csv", ",", "\r\n", True, csv.QUOTE_ALL, True),
    ("semicolon.csv", ";", "\r\n", True, csv.QUOTE_MINIMAL, False), ("tab.tsv", "\t", "\n", False, csv.QUOTE_MINIMAL, False),
    ("pipe.csv", "|", "\n", False, csv.QUOTE_MINIMAL, True), ("unnamed", "\t", "\n", False, csv.QUOTE_NONNUMERIC, True)]


def table(name, delimiter, end, mark, quoting, last_end, seed):
    choose = random.Random(seed)
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(["id", "question, with comma", "answer"])
    for i in range(40):
        writer.writerow(["r%d" % i] + [choose.choice(CELLS) for _ in range(2)])
    content = text.getvalue() if last_end else text.getvalue().rstrip("\r\n")
    if not last_end and content.count('"') % 2: raise SystemExit("the end of a cell was cut off")
    with open(path(name), "wb") as file:
        file.write((b"\xef\xbb\xbf" if mark else b"") + content.encode())
    rows = list(csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter))
    with open(path(name + ".json"), "w", encoding="utf-8") as file:
        json.dump(rows, file, ensure_ascii=False, indent=0)


for seed, style in enumerate(STYLES):
    table(*style, seed)
lines = ["%s\n" % json.dumps({"n": i, "text": "row %d: %s" % (i, "six times seven " * (i % 7))}) for i in range(200)]
halves = ["".join(lines[:90]).encode(), "".join(lines[90:]).encode()]
open(path("lines.jsonl"), "wb").write(b"".join(halves))
open(path("lines.jsonl.gz"), "wb").write(b"".join(gzip.compress(half, mtime=0) for half in halves))
zstd = lambda half: subprocess.run(["zstd", "-c", "-q"], input=half, stdout=subprocess.PIPE, check=True).stdout
open(path("lines.jsonl.zst"), "wb").write(b"".join(zstd(half) for half in halves))
