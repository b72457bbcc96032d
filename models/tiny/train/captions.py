# SPDX-License-Identifier: LGPL-2.1-or-later
"""Captions of scenes, the closed list of evaluation prompts, and the tokenizer that is trained on the captions.

`python3 captions.py` writes the list to prompts.json.
"""
import collections
import io
import json
import math
import os
import random
import struct
import sys
import tempfile

import world

NAMES = {
    "ball": ["ball", "ball", "beach ball", "sphere"], "cube": ["cube", "cube", "box", "block"], "triangle": ["triangle"], "star": ["star"],
    "heart": ["heart"], "ring": ["ring", "ring", "hoop", "swim ring"], "fish": ["fish"], "butterfly": ["butterfly"],
    "rocket": ["rocket", "rocket", "spaceship"], "flower": ["flower", "flower", "blossom"], "ghost": ["ghost", "ghost", "little ghost"],
    "mushroom": ["mushroom", "mushroom", "toadstool"],
}
COLOURS = {"turquoise": ["turquoise", "turquoise", "cyan"], "purple": ["purple", "purple", "violet"], "yellow": ["yellow", "yellow", "golden"]}
SMALL, LARGE, ANY = ["small", "little", "tiny"], ["large", "big", "huge"], ["shiny", "bright", "cute", "pretty", "funny"]
MOTIONS = {
    "bounce": ["bouncing", "bouncing", "bouncing up and down", "jumping", "hopping up and down"],
    "circle": ["circling", "moving in circles", "going round in circles", "flying in a circle"],
    "swing": ["swinging", "swinging from side to side", "swinging like a pendulum"],
    "right": ["drifting to the right", "moving to the right", "gliding right", "flying to the right", "going from left to right"],
    "left": ["drifting to the left", "moving to the left", "gliding left", "flying to the left", "going from right to left"],
    "spin": ["spinning", "spinning around", "rotating", "turning round and round"],
    "pulse": ["pulsing", "growing and shrinking", "beating", "throbbing"],
    "rise": ["rising", "rising slowly", "floating up", "flying upwards", "going up"],
    "fall": ["falling", "falling down", "sinking", "dropping slowly", "going down"],
    "zigzag": ["zigzagging", "moving in a zigzag", "flying in zigzags", "darting to and fro"],
}
RELATIONS = {       # {0} and {1}: the two subjects
    "chase": ["{0} chasing {1}", "{0} following {1}", "{0} running after {1}", "{1} being chased by {0}", "{1} fleeing from {0}"],
    "orbit": ["{0} orbiting {1}", "{0} circling around {1}", "{0} flying around {1}", "{1} orbited by {0}", "{1} with {0} going around it"],
    "bump": ["{0} and {1} bumping into each other", "{0} bumping into {1}", "{0} and {1} bouncing off each other", "{0} colliding with {1}"],
    "dance": ["{0} and {1} bouncing side by side", "{0} and {1} dancing", "{0} and {1} jumping in turns", "{0} dancing with {1}"],
}
BACKGROUNDS = {
    "sky": ["in a blue sky", "in the sky among white clouds", "in front of a cloudy sky", "high up in the clouds", "in a sunny sky with drifting clouds"],
    "night": ["in a starry night", "at night under the stars", "in the night sky with a moon", "by moonlight", "in front of a starry sky"],
    "sea": ["over the sea at sunset", "above the ocean at sunset", "in front of a sunset", "over the evening sea", "over the waves at dusk"],
    "meadow": ["over a green meadow", "in a meadow with flowers", "on a sunny meadow", "in front of green hills", "in a field of flowers"],
    "snow": ["in falling snow", "in a snowy forest", "while it snows", "in a winter landscape", "in the snow among fir trees"],
    "desert": ["in the desert", "over desert dunes", "in front of sand dunes", "in a hot desert with a cactus", "above the sand"],
    "rain": ["in the rain", "in heavy rain", "on a rainy day", "while it rains", "over a lake in the rain"],
    "aurora": ["under northern lights", "under the aurora", "beneath the northern lights", "in front of an aurora over mountains", "under green polar lights"],
    "city": ["over a city at dusk", "in front of a city skyline", "above the lights of a city", "in a city in the evening", "in front of tall buildings"],
    "underwater": ["under water", "underwater", "at the bottom of the sea", "in the deep blue water with bubbles", "among seaweed and bubbles"],
}
CAMERA = ["the camera sways", "with a swaying camera", "the camera moves slowly from side to side", "slow camera drift"]


KNOWS = ("subjects: ball, cube, triangle, star, heart, ring, fish, butterfly, rocket, flower, ghost, mushroom; colours: red, orange, yellow, green, "
         "turquoise, blue, purple, pink, white, black; motions: bouncing, circling, swinging, drifting left or right, spinning, pulsing, rising, falling, "
         "zigzagging, and of two subjects chasing, orbiting, bumping, dancing; backgrounds: a blue sky, a starry night, the sea at sunset, a green meadow, "
         "falling snow, the desert, the rain, northern lights, a city at dusk, under water")
SENTENCE = "a an the and is a video of a clip of an animation of"     # what caption() puts between


def article(noun, rng):
    return f"the {noun}" if rng.random() < 0.12 else f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def thing(rng, name, colour, size=None):
    words, p = [], rng.random()
    if size is not None and size < 0.35 and p < 0.6:
        words.append(rng.choice(SMALL))
    elif size is not None and size > 0.65 and p < 0.6:
        words.append(rng.choice(LARGE))
    elif p > 0.85:
        words.append(rng.choice(ANY))
    return " ".join([*words, rng.choice(COLOURS.get(colour, [colour])), rng.choice(NAMES[name])])


def caption(rng, scene):
    """One of very many captions of the scene; some leave out the motion, the background or the camera."""
    place, form = rng.choice(BACKGROUNDS[scene["background"]]), rng.random()
    if scene["relation"] is None:
        noun = thing(rng, *scene["subjects"][0])
        subject, motion = article(noun, rng), rng.choice(MOTIONS[scene["motion"]])
        if form < 0.46:
            text = f"{subject} {motion} {place}"
        elif form < 0.58:
            text = f"{subject} is {motion} {place}"
        elif form < 0.67:
            text = f"{place}, {subject} is {motion}"
        elif form < 0.73:
            text = f"{subject} {place}, {motion}"
        elif form < 0.79:
            text = f"{rng.choice(['a video of', 'a clip of', 'an animation of'])} {subject} {motion} {place}"
        elif form < 0.84:
            text = f"{noun}, {motion}, {place}"
        elif form < 0.89:
            text = f"{subject} {motion}"
        elif form < 0.94:
            text = f"{subject} {place}"
        elif form < 0.96:
            text = subject
        else:
            text = f"{scene['subjects'][0][1]} {scene['subjects'][0][0]} {motion} {place}"
    else:
        first, second = (article(thing(rng, name, colour), rng) for name, colour, _ in scene["subjects"])
        both = rng.choice(RELATIONS[scene["relation"]]).format(first, second)
        if form < 0.62:
            text = f"{both} {place}"
        elif form < 0.80:
            text = f"{place}, {both}"
        elif form < 0.88:
            text = f"{rng.choice(['a video of', 'a clip of', 'an animation of'])} {both} {place}"
        elif form < 0.94:
            text = both
        else:
            text = f"{first} and {second} {place}"
    if scene["camera"] and rng.random() < 0.8:
        text += f", {rng.choice(CAMERA)}"
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return text + ("." if rng.random() < 0.3 else "")


def prompts():
    """The evaluation list: 100 prompts with one subject, in which every pair of subject and colour, motion and background is about evenly spread, and
    20 with two; always the plainest words. [{prompt, subjects, motion, relation, background}]"""
    rng, out = random.Random(2024), []
    n, colours = len(world.SUBJECTS), list(world.COLOURS)
    name = lambda s, c: f"{'an' if c[0] in 'aeiou' else 'a'} {c} {s}"
    for i in range(100):
        s, c, m, b = world.SUBJECTS[i % n], colours[(i + i // 10) % 10], world.MOTIONS[(3 * i + i // 20) % 10], world.BACKGROUNDS[(7 * i + i // 10 + i // 50) % 10]
        out.append(dict(prompt=f"{name(s, c)} {MOTIONS[m][0]} {BACKGROUNDS[b][0]}", subjects=[[s, c]], motion=m, relation=None, background=b))
    for i in range(20):
        (s0, s1), (c0, c1) = rng.sample(world.SUBJECTS, 2), rng.sample(colours, 2)
        r, b = world.RELATIONS[i % 4], world.BACKGROUNDS[(3 * i) % 10]
        out.append(dict(prompt=f"{RELATIONS[r][0].format(name(s0, c0), name(s1, c1))} {BACKGROUNDS[b][0]}", subjects=[[s0, c0], [s1, c1]], motion=None, relation=r, background=b))
    return out


def words():
    """Every word of a caption, in the alphabet's order, in one text."""
    texts = [SENTENCE, *SMALL, *LARGE, *ANY, *CAMERA, *world.COLOURS]
    for table in NAMES, COLOURS, MOTIONS, RELATIONS, BACKGROUNDS:
        texts += [text for texts in table.values() for text in texts]
    return " ".join(sorted(set(" ".join(texts).format("", "").split())))


# ---- the tokenizer ----

VOCAB = 512         # rows of the text encoder's table; the captions have fewer pieces
TEXT = 31           # tokens kept of a caption, its end included; the longest has 30


def train_tokenizer(seed=11, sentences=40000):
    """A SentencePiece unigram model, as bytes. Lower and upper case are one: its character map folds ASCII, and is all that it does, so that the file is
    small. The trainer keeps few pieces of a language this small; the words it left in pieces are added whole, with the scores their frequencies give."""
    import sentencepiece as spm

    rng, model = random.Random(seed), io.BytesIO()
    rules = os.path.join(tempfile.gettempdir(), f"fold-{os.getpid()}.tsv")
    with open(rules, "w") as f:
        for c in range(26):
            f.write(f"{65 + c:X}\t{97 + c:X}\n")
        f.write("9\t20\nA\t20\nD\t20\n")       # tab, line feed, carriage return: spaces
    lines = [caption(rng, world.sample(rng)).lower() for _ in range(sentences)]
    letters = ["hello video a picture of", "a b c d e f g h i j k l m n o p q r s t u v w x y z", "0 1 2 3 4 5 6 7 8 9 , . ! ? - ' \" : ;"]
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(lines + letters * 20), model_writer=model, vocab_size=VOCAB, model_type="unigram", hard_vocab_limit=False,
            character_coverage=1.0, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>",
            normalization_rule_tsv=rules, add_dummy_prefix=True, num_threads=1, minloglevel=2)
    finally:
        os.unlink(rules)
    parts = []
    for number, value, raw in fields(model.getvalue()):
        if number == 3:         # the name of the rules' file is in the normaliser's specification
            value = b"".join(r for n, _, r in fields(value) if n != 6)
            raw = b"\x1a" + bytes([len(value) & 127 | 128, len(value) >> 7]) + value
        parts.append(raw)
    model = b"".join(parts)
    counts = collections.Counter(w for line in lines for w in line.replace(",", " ").replace(".", " ").split())
    known, total, added = spm.SentencePieceProcessor(model_proto=model), sum(counts.values()), b""
    words = [w for w, _ in sorted(counts.items(), key=lambda e: (-e[1], e[0])) if known.piece_to_id("\u2581" + w) == known.unk_id()]
    for w in words[: VOCAB - known.get_piece_size()]:
        text = ("\u2581" + w).encode()
        piece = b"\x0a" + bytes([len(text)]) + text + b"\x15" + struct.pack("<f", math.log(counts[w] / total))      # SentencePiece: 1 piece, 2 score
        added += b"\x0a" + bytes([len(piece)]) + piece                                                              # ModelProto: 1 pieces
    return model + added     # messages that follow each other are one


def fields(message):
    """(number, value, the bytes of both) of each field of a protobuf message."""
    def varint(at):
        value = shift = 0
        while True:
            value |= (message[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if message[at - 1] < 128:
                return value, at

    at = 0
    while at < len(message):
        begin, (tag, at) = at, varint(at)
        if tag & 7 == 0:
            value, at = varint(at)
        else:
            size, at = (8, at) if tag & 7 == 1 else (4, at) if tag & 7 == 5 else varint(at)
            value, at = message[at : at + size], at + size
        yield tag >> 3, value, message[begin:at]


def character_map(model):
    return next(value for spec, inner, _ in fields(model) if spec == 3 for number, value, _ in fields(inner) if number == 2)


class Tokenizer:
    def __init__(self, model):
        import sentencepiece as spm

        self.spm = spm.SentencePieceProcessor(model_proto=model)

    def ids(self, texts):
        """Lists of TEXT ids each, the end of the text included, padded with 0."""
        out = []
        for t in texts:
            ids = self.spm.encode(t)[: TEXT - 1] + [1]
            out.append(ids + [0] * (TEXT - len(ids)))
        return out


if __name__ == "__main__":
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "prompts.json") if len(sys.argv) < 2 else sys.argv[1], "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(p) for p in prompts()) + "\n]\n")
