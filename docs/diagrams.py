"""The lessons' diagrams, drawn in one style and kept inside the notebooks as attachments.

    python -m docs.diagrams          # draws all of them anew into notebooks/

A markdown cell shows one with `![what it shows](attachment:NAME.svg)`. Attachments travel with a notebook:
into students' copies, Colab and rendered pages. A test fails when a notebook holds another drawing than this
script makes.

What this script does not do: it draws nothing from data. Figures of results are made by the lessons' cells.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import nbformat

from docs.drawing import BLUE, GREEN, GREY, ORANGE, RED, Drawing

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def contrastive() -> Drawing:
    """How CLIP learned: every picture against every caption."""
    d = Drawing(700, 300)
    captions = ["a round face, smiling", "a square face with a hat", "a serious teal face"]
    for i, caption in enumerate(captions):
        y = 40 + 70 * i
        d.box(20, y, 90, 44, f"picture {i + 1}", GREY)
        d.arrow(110, y + 22, 148, 132, GREY)
        d.box(400 + 100 * i, 210, 92, 30, f"caption {i + 1}", GREY)
        d.arrow(446 + 100 * i, 210, 446 + 100 * i, 192, GREY)
        d.text(446 + 100 * i, 258 + 15 * (i % 2), f"“{caption}”", size=11, colour=GREY)
    d.box(150, 92, 90, 80, "image\ntower")
    d.arrow(240, 132, 310, 132)
    d.text(546, 24, "a cosine for every pair")
    for row in range(3):
        for column in range(3):
            same = row == column
            d.box(
                400 + 100 * column, 40 + 48 * row, 92, 40, "high" if same else "low", GREEN if same else GREY
            )
        d.text(390, 65 + 48 * row, f"picture {row + 1}", anchor="end", size=11, colour=GREY)
    d.text(
        20,
        290,
        "Captions go through the text tower. Training raises the green cosines and lowers the rest.",
        "start",
    )
    return d


def prompt_in_the_tower() -> Drawing:
    """Where learned vectors enter the text tower."""
    d = Drawing(700, 330)
    words = ["start", "v1", "v2", "v3", "v4", "smiling", "face", "end"]
    for layer, y in enumerate((252, 132)):
        for i, word in enumerate(words):
            learned = word.startswith("v")
            label = word if layer == 0 else (word.replace("v", "u") if learned else "")
            d.box(30 + 68 * i, y, 60, 30, label, ORANGE if learned else BLUE)
            d.arrow(60 + 68 * i, y, 60 + 68 * i, y - 26, GREY)
            if layer == 1 and not learned:  # what block 1 makes of v1 to v4 is not used
                d.arrow(60 + 68 * i, y + 60, 60 + 68 * i, y + 34, GREY)
    d.box(30, 192, 536, 32, "block 1 of the text tower (frozen)", GREY)
    d.box(30, 72, 536, 32, "block 2 of the text tower (frozen)", GREY)
    d.arrow(536, 72, 536, 46)
    d.text(528, 36, "class arrow T, read at the end mark", anchor="end")
    d.text(580, 266, "v: learned,", "start", ORANGE)
    d.text(580, 282, "layer 0", "start", ORANGE)
    d.text(580, 146, "u: learned,", "start", ORANGE)
    d.text(580, 162, "layer 1 (deep)", "start", ORANGE)
    d.caption(312, "orange: the prompt, the only numbers that are trained or sent; blue: words; grey: frozen")
    return d


def federated_round() -> Drawing:
    """What moves in one round, and what stays."""
    d = Drawing(700, 270)
    d.box(500, 90, 150, 76, "server:\nweighted mean\nof the prompts", BLUE)
    for k in range(3):
        y = 22 + 78 * k
        d.box(30, y, 120, 56, f"client {k + 1}:\nits own pictures", GREY)
        d.box(180, y + 10, 110, 36, "trains P", ORANGE)
        d.arrow(150, y + 28, 178, y + 28, GREY)
        d.arrow(498, 118 + 8 * k, 294, y + 18, BLUE)
        d.arrow(292, y + 38, 498, 130 + 8 * k, ORANGE)
    d.text(400, 36, "down: the prompt P", colour=BLUE)
    d.text(400, 240, "up: the tuned prompt, and a few numbers about it", colour=ORANGE)
    d.text(90, 262, "pictures and labels stay", colour=GREY)
    return d


def shift() -> Drawing:
    """CDFP's counterfactual embedding."""
    d = Drawing(700, 270)
    for x, y in ((420, 80), (450, 120), (480, 70), (512, 98), (470, 164)):
        d.dot(x, y, BLUE)
    for x, y in ((190, 170), (220, 130), (240, 190), (260, 150), (200, 210)):
        d.dot(x, y, ORANGE, square=True)
    d.text(505, 62, "round faces", colour=BLUE, anchor="start")
    d.text(120, 240, "square faces", colour=ORANGE, anchor="start")
    d.arrow(443, 122, 222, 174, "#444")
    d.text(318, 128, "α (D_target − D_source)")
    d.text(464, 127, "z: a round, smiling face", anchor="start")
    d.dot(214, 176, BLUE)
    d.text(50, 150, "z_cf: “what if", anchor="start")
    d.text(50, 166, "it were square?”", anchor="start")
    d.arrow(350, 250, 350, 200, GREEN)
    d.text(362, 230, "T: the class text turns until both get the same answer", anchor="start", colour=GREEN)
    return d


def projection() -> Drawing:
    """DSOP's projection, before and after."""
    d = Drawing(700, 270)
    round_faces = ((230, 70), (260, 110), (280, 80), (250, 150), (290, 140))
    square_faces = ((90, 110), (110, 160), (70, 180), (130, 200), (150, 150))
    d.line(40, 135, 330, 135)
    d.text(180, 250, "before: U tells the groups apart")
    for x, y in round_faces:
        d.dot(x, y, BLUE)
        d.dot(520 + (x - 260) * 0.04, y, BLUE)
    for x, y in square_faces:
        d.dot(x, y, ORANGE, square=True)
        d.dot(520 + (x - 110) * 0.04, y, ORANGE, square=True)
    d.text(336, 130, "U", anchor="start")
    d.arrow(370, 135, 440, 135)
    d.text(405, 120, "λ = 1")
    d.line(520, 50, 520, 222)
    d.text(530, 250, "after: all faces share one place along U, that of μ")
    d.text(536, 62, "the heights stay", anchor="start", colour=GREEN)
    return d


def gap() -> Drawing:
    """A rate in each of two groups, and the gap between them."""
    d = Drawing(700, 250)
    for x, name, colour, smiling in ((60, "round", BLUE, 3), (390, "square", ORANGE, 1)):
        d.text(x + 95, 30, f"four {name} beings", colour=colour)
        for i in range(4):
            mark = "smiles" if i < smiling else "serious"
            d.box(x + 50 * i, 44, 46, 30, "", colour if i < smiling else GREY)
            d.text(x + 23 + 50 * i, 63, mark, size=10)
        height = 32 * smiling
        d.box(x + 70, 220 - height, 60, height, f"{smiling / 4:.2f}", colour)
        d.text(x + 100, 240, f"rate: {smiling} of 4", size=12)
    d.line(190, 124, 560, 124)
    d.line(190, 188, 560, 188)
    d.arrow(330, 188, 330, 128, GREEN)
    d.text(342, 161, "gap 0.50", "start", GREEN)
    return d


def two_towers() -> Drawing:
    """From a picture and two sentences to two probabilities."""
    d = Drawing(700, 250)
    d.box(20, 40, 100, 50, "a picture x", GREY)
    d.box(20, 130, 170, 34, "“… a serious face”", GREY)
    d.box(20, 176, 170, 34, "“… a smiling face”", GREY)
    d.box(220, 40, 100, 50, "image tower\nf")
    d.box(220, 140, 100, 60, "text tower\nh")
    d.arrow(120, 65, 218, 65)
    for y in (147, 193):
        d.arrow(190, y, 218, 160 if y == 147 else 180)
    d.arrow(320, 65, 362, 65)
    d.arrow(320, 160, 362, 152)
    d.arrow(320, 180, 362, 188)
    d.box(364, 47, 60, 36, "z", ORANGE)
    d.box(364, 136, 60, 30, "T₁", ORANGE)
    d.box(364, 174, 60, 30, "T₂", ORANGE)
    d.text(394, 34, "length 1", size=11, colour=GREY)
    d.box(470, 96, 92, 50, "cosines\nz·T₁, z·T₂", GREEN)
    d.arrow(424, 65, 468, 106)
    d.arrow(424, 151, 468, 128)
    d.arrow(424, 189, 468, 138)
    d.box(604, 96, 80, 50, "0.2\n0.8", GREEN)
    d.arrow(562, 121, 602, 121)
    d.text(583, 88, "softmax, scale s", size=11)
    d.caption(238, "Nothing is trained here: a class is a sentence.")
    return d


def rates() -> Drawing:
    """Four kinds of answers in one group, and the rates made of them."""
    d = Drawing(700, 230)
    d.text(185, 28, "smiling faces")
    d.text(325, 28, "serious faces")
    d.text(105, 68, "called smiling", "end", size=12)
    d.text(105, 128, "called serious", "end", size=12)
    d.box(120, 40, 130, 50, "smile found", GREEN)
    d.box(260, 40, 130, 50, "false smile", ORANGE)
    d.box(120, 100, 130, 50, "missed smile", ORANGE)
    d.box(260, 100, 130, 50, "rightly serious", GREEN)
    d.arrow(185, 152, 185, 176)
    d.text(185, 194, "TPR = found / all smiling")
    d.arrow(325, 152, 325, 200)
    d.text(325, 218, "FPR = false smiles / all serious")
    d.arrow(392, 65, 430, 65)
    d.text(436, 62, "selection rate =", "start")
    d.text(436, 79, "upper row / all faces", "start")
    d.text(436, 124, "One such table for each group.", "start", GREY, 12)
    d.text(436, 141, "A gap compares the groups’ rates.", "start", GREY, 12)
    return d


def two_sources() -> Drawing:
    """Why this model treats round and square beings differently."""
    d = Drawing(700, 250)
    chains = (
        (BLUE, ("round being", "clear picture", "looks round", "“smiling”")),
        (ORANGE, ("square being", "worse picture", "looks square", "“serious”")),
    )
    for row, (colour, words) in enumerate(chains):
        y = 50 + 90 * row
        for i, word in enumerate(words):
            d.box(20 + 180 * i, y, 120, 40, word, colour)
        for i in range(3):
            d.arrow(140 + 180 * i, y + 20, 198 + 180 * i, y + 20)
    d.text(170, 30, "planted in the pictures", size=12, colour=GREY)
    d.text(350, 120, "planted in both: unclear ones were mostly square", size=12, colour=GREY)
    d.text(530, 30, "planted in the captions", size=12, colour=GREY)
    d.line(80, 205, 620, 205)
    d.text(350, 225, "the outline alone: hardly any effect", size=12, colour=GREY)
    return d


def three_formulas() -> Drawing:
    """One pair of gaps, put together in three ways."""
    d = Drawing(700, 220)
    d.text(120, 26, "two gaps")
    d.box(40, 40, 160, 30, "TPR gap 0.20", BLUE)
    d.box(40, 84, 96, 30, "FPR gap 0.12", ORANGE)
    d.text(330, 26, "worst", "start")
    d.box(330, 40, 160, 30, "0.20", BLUE)
    d.text(330, 96, "sum", "start")
    d.box(330, 106, 160, 30, "", BLUE)
    d.box(490, 106, 96, 30, "", ORANGE)
    d.text(600, 126, "0.32", "start")
    d.text(330, 162, "mean", "start")
    d.box(330, 172, 128, 30, "0.16", GREY)
    d.arrow(214, 55, 322, 55)
    d.arrow(214, 90, 322, 120)
    d.arrow(214, 104, 322, 184)
    d.text(40, 150, "The longer the bar, the larger", "start", GREY, 12)
    d.text(40, 167, "the “equalized odds difference”.", "start", GREY, 12)
    return d


def undefined_rate() -> Drawing:
    """0 of 0 has no value; writing 0 for it makes a gap."""
    d = Drawing(700, 210)
    for k, (name, found, colour) in enumerate(
        (("a", "4 of 5", BLUE), ("b", "4 of 5", BLUE), ("c", "0 of 0", GREY))
    ):
        x = 60 + 90 * k
        d.text(x + 30, 190, f"group {name}", size=12)
        d.text(x + 30, 30, found, size=12)
        if colour == BLUE:
            d.box(x, 44, 60, 128, "0.8", colour)
        else:
            d.text(x + 30, 120, "?", size=28, colour=GREY)
    d.arrow(340, 90, 420, 66)
    d.arrow(340, 120, 420, 150)
    d.box(426, 44, 244, 44, "written as 0: a gap of 0.8", ORANGE)
    d.box(426, 128, 244, 44, "left out, and said so: a gap of 0", GREEN)
    return d


def words_and_vectors() -> Drawing:
    """A sentence in front of a class name, and learned vectors in its place."""
    d = Drawing(700, 170)
    rows = (
        ("start", "a", "drawing", "of", "a", "smiling", "face", "end"),
        ("start", "v1", "v2", "v3", "v4", "smiling", "face", "end"),
    )
    for row, words in enumerate(rows):
        for i, word in enumerate(words):
            d.box(30 + 80 * i, 30 + 70 * row, 72, 36, word, ORANGE if word.startswith("v") else BLUE)
    for i in range(1, 5):
        d.arrow(66 + 80 * i, 66, 66 + 80 * i, 98, ORANGE)
    d.caption(158, "blue: vectors of words, frozen; orange: the prompt, learned")
    return d


def anchor() -> Drawing:
    """Cross-entropy pulls the class text to the pictures, the anchor back to the sentence."""
    d = Drawing(700, 230)
    for x, y in ((520, 50), (560, 80), (600, 60), (570, 40), (620, 95)):
        d.dot(x, y, GREEN)
    d.text(640, 55, "smiling", "start", GREEN, 12)
    d.box(330, 100, 70, 34, "T", ORANGE)
    d.box(80, 150, 170, 40, "T of the sentence", BLUE)
    d.arrow(402, 108, 505, 72, GREEN)
    d.arrow(328, 122, 252, 158, BLUE)
    d.text(440, 56, "cross-entropy:", "end", GREEN, 12)
    d.text(440, 73, "nearer to the pictures", "end", GREEN, 12)
    d.text(300, 190, "anchor, λₐ: not too far from the words", "start", BLUE, 12)
    d.text(365, 152, "learned", size=11, colour=ORANGE)
    return d


def drift() -> Drawing:
    """Clients run to their own optimum; the mean of the places is not the common optimum."""
    d = Drawing(700, 250)
    d.box(40, 108, 40, 34, "P", BLUE)
    for k, (x, y) in enumerate(((330, 40), (400, 130), (260, 215)), start=1):
        d.arrow(82, 125, x - 8, y, ORANGE)
        d.dot(x, y, ORANGE)
        d.text(x + 12, y + 5, f"client {k}’s optimum", "start", ORANGE, 12)
    d.dot(330, 128, BLUE, square=True)
    d.text(330, 112, "mean of the three", colour=BLUE, size=12)
    d.dot(470, 180, GREEN, square=True)
    d.text(484, 185, "optimum of all pictures together", "start", GREEN, 12)
    d.line(338, 132, 462, 176, GREEN)
    d.text(560, 60, "After many steps alone, the mean", size=12, colour=GREY)
    d.text(560, 77, "is not where all would have gone.", size=12, colour=GREY)
    return d


def using_a_run() -> Drawing:
    """What can be done with a finished run."""
    d = Drawing(700, 250)
    d.box(20, 95, 110, 56, "table A,\nits pictures", GREY)
    d.arrow(132, 123, 168, 123, GREY)
    d.box(170, 95, 130, 56, "fvlfp train →\nrun folder", ORANGE)
    for y, verb, given, made in (
        (20, "predict", "new pictures,\nno labels", "classes and\nscores"),
        (97, "audit run", "table B,\nwith labels", "report: gaps\nwith intervals"),
        (174, "export", "", "two matrices,\nplain open_clip"),
    ):
        d.arrow(300, 123, 358, y + 26, ORANGE)
        d.box(360, y, 90, 52, verb)
        d.arrow(450, y + 26, 548, y + 26)
        d.box(550, y, 130, 52, made, GREEN)
        if given:
            d.text(499, y + 12, given.split("\n")[0], colour=GREY, size=11)
            d.text(499, y + 44, given.split("\n")[1], colour=GREY, size=11)
    d.text(20, 235, "train once; the three on the right train nothing", "start", GREY, 12)
    return d


def deployment() -> Drawing:
    """SuperLink, SuperNodes, and who owns what."""
    d = Drawing(700, 290)
    d.box(240, 20, 220, 50, "server app: fuses prompts,\nsaves checkpoints", BLUE)
    d.box(240, 96, 220, 34, "SuperLink: passes messages on", GREY)
    d.arrow(350, 70, 350, 94, GREY)
    for k, x in enumerate((20, 250, 480)):
        d.box(x, 190, 200, 80, f"SuperNode {k + 1}\nown pictures, own keys,\nowner's limits", ORANGE)
        middle = x + 100
        d.arrow(330 + 20 * k, 132, middle - 10, 188, BLUE)
        d.arrow(middle + 10, 188, 350 + 20 * k, 132, ORANGE)
    d.text(130, 136, "down: the prompt", colour=BLUE)
    d.text(580, 136, "up: tuned prompt, report", colour=ORANGE)
    d.text(580, 152, "(TLS; the node asks first)", colour=GREY, size=11)
    return d


def deadline() -> Drawing:
    """How a round ends."""
    d = Drawing(700, 190)
    for k, (length, colour) in enumerate(((180, GREEN), (300, GREEN), (520, GREY))):
        y = 24 + 40 * k
        d.text(90, y + 18, f"client {k + 1}", anchor="end")
        d.box(100, y, length, 26, "answers" if k < 2 else "too slow: left out of this round", colour)
    d.line(460, 10, 460, 150)
    d.text(460, 172, "deadline: go on with two answers, if two are enough")
    d.arrow(100, 152, 660, 152, GREY)
    d.text(668, 157, "time", "start", GREY, 11)
    return d


def liars() -> Drawing:
    """Honest, broken and lying updates as arrows."""
    d = Drawing(700, 300)
    x, y = 250, 150
    for dx, dy in ((110, -50), (130, -80), (90, -70), (120, -30)):
        d.arrow(x, y, x + dx, y + dy, GREEN)
    d.arrow(x, y, x - 118, y + 62, RED)
    d.arrow(x, y, x + 380, y + 118, ORANGE)
    d.arrow(x, y, x + 100, y - 55, BLUE, dashed=True)
    d.text(384, 62, "four honest updates", "start", GREEN)
    d.text(384, 112, "dashed: the trimmed mean of all but the broken one", "start", BLUE)
    d.text(40, 236, "a lie: the opposite,", "start", RED)
    d.text(40, 252, "just as long", "start", RED)
    d.text(480, 290, "broken: many times longer, so it is seen", "middle", ORANGE)
    d.text(238, 140, "P", anchor="end")
    return d


def masks() -> Drawing:
    """Pairwise masks that vanish in the sum."""
    d = Drawing(700, 250)
    for k, (y, sends) in enumerate(
        ((20, "share 1 + a + b"), (100, "share 2 − a + c"), (180, "share 3 − b − c"))
    ):
        d.box(30, y, 110, 44, f"client {k + 1}", ORANGE)
        d.box(190, y, 160, 44, sends, GREY)
        d.arrow(140, y + 22, 188, y + 22, GREY)
        d.arrow(350, y + 22, 468, 110 + 12 * k, GREY)
    d.box(470, 90, 200, 64, "server: the sum is\nshare 1 + share 2 + share 3", BLUE)
    d.text(410, 40, "each looks random", colour=GREY, size=12)
    d.text(570, 180, "a, b, c: agreed by pairs,", colour=GREY, size=12)
    d.text(570, 196, "once with plus, once with minus", colour=GREY, size=12)
    return d


def your_folder() -> Drawing:
    """The three things that lie side by side, and what is made of them."""
    d = Drawing(700, 230)
    for y, name in (
        (20, "images/ …"),
        (90, "faces.csv: a row\nfor each picture"),
        (160, "faces.card.toml:\nwords, rights, origin"),
    ):
        d.box(20, y, 160, 50, name, GREY)
        d.arrow(180, y + 25, 238, 115, GREY)
    d.box(240, 85, 120, 60, "fvlfp check", ORANGE)
    d.text(300, 170, "every problem at once,", colour=GREY, size=11)
    d.text(300, 185, "each with its row", colour=GREY, size=11)
    d.arrow(360, 105, 448, 62, GREEN)
    d.arrow(360, 125, 448, 168, GREEN)
    d.box(450, 35, 220, 52, "fvlfp audit clip:\na report, nothing is trained", GREEN)
    d.box(450, 143, 220, 52, "fvlfp train:\nprompts, and both audits", GREEN)
    return d


def dealt_anew() -> Drawing:
    """The permutation test: groups dealt anew among the same answers."""
    d = Drawing(700, 220)
    rows = ((BLUE, False), (BLUE, False), (ORANGE, True), (BLUE, False), (ORANGE, True), (ORANGE, True))
    for i, (x0, order) in enumerate(((60, (0, 1, 2, 3, 4, 5)), (300, (4, 0, 1, 2, 5, 3)))):
        for j, k in enumerate(order):
            colour, square = rows[k]
            d.dot(x0, 40 + 24 * j, colour, square=square)
            d.text(x0 + 20, 45 + 24 * j, "right" if j < 3 or j == 4 else "wrong", "start", GREY, 12)
        d.text(x0 + 40, 205, "as they are: the gap" if i == 0 else "dealt anew: chance's gap")
    d.arrow(160, 100, 262, 100)
    d.text(211, 90, "shuffle groups", size=12)
    d.box(460, 50, 210, 80, "again and again:\nhow often is chance's gap\nas large as the real one?", GREEN)
    d.arrow(390, 90, 458, 90, GREEN)
    return d


def peers_judging() -> Drawing:
    """FPF judged by peers: class texts go to the other clients, counts come back."""
    d = Drawing(700, 270)
    for k in range(3):
        y = 24 + 76 * k
        d.box(20, y, 110, 50, f"client {k + 1}\nsends P", ORANGE)
        d.arrow(130, y + 25, 186, 120 + 10 * k, ORANGE)
    d.box(190, 86, 130, 90, "server:\nclass texts\nof every prompt")
    for k in range(3):
        y = 24 + 76 * k
        d.arrow(320, 120 + 10 * k, 396, y + 25, BLUE)
        others = " and ".join(str(j + 1) for j in range(3) if j != k)
        d.box(400, y, 130, 50, f"client {k + 1}\njudges {others}", GREEN)
        d.arrow(530, y + 25, 586, 120 + 10 * k, GREEN)
    d.box(590, 86, 96, 90, "recall of\neach cell,\nthen w")
    d.caption(260, "Nobody judges itself. Judges send back counts of right answers.")
    return d


def opposite_errors() -> Drawing:
    """Gaps of opposite sign cancel in a sum of prompts."""
    d = Drawing(700, 220)
    for x, name, colour, side in ((40, "client A", BLUE, -1), (40, "client B", ORANGE, 1)):
        y = 60 if side < 0 else 130
        d.text(x, y + 5, name, "start")
        d.line(120, y, 340, y)
        d.arrow(230, y, 230 + 70 * side, y, colour)
    d.text(150, 34, "better for round", size=12, colour=GREY)
    d.text(310, 34, "better for square", size=12, colour=GREY)
    d.arrow(370, 95, 430, 95)
    d.text(400, 84, "fused")
    d.line(460, 95, 660, 95)
    d.dot(560, 95, GREEN)
    d.text(560, 125, "no side preferred", colour=GREEN)
    d.caption(195, "Each alone has a large gap. A rule without the sign would drop both.")
    return d


def twins() -> Drawing:
    """The two kinds of twins of lesson 06: what differs within a pair."""
    d = Drawing(700, 230)
    rows = (
        (50, "as in the data", "round, clear", "square, worse picture", "outline and picture differ"),
        (130, "outline only", "round, worse picture", "square, worse picture", "the outline differs"),
    )
    for y, name, first, second, differs in rows:
        d.text(120, y + 25, name, "end")
        d.box(140, y, 150, 40, first, BLUE)
        d.box(330, y, 150, 40, second, ORANGE)
        d.line(290, y + 20, 330, y + 20)
        d.text(494, y + 25, differs, "start", GREEN)
    d.text(215, 34, "the round twin", size=12, colour=GREY)
    d.text(405, 34, "the square twin", size=12, colour=GREY)
    d.caption(205, "Smile, tint, pose and background are the same within a pair.")
    return d


def leaning_text() -> Drawing:
    """The toy of lesson 06: a leaning class text changes its answer with the shift, a straight one hardly."""
    d = Drawing(700, 260)
    for x, name, tip, colour in (
        (170, "T leans: it mixes smiling with round", (72, 96), ORANGE),
        (520, "T is straight: the shift hardly matters", (0, 120), GREEN),
    ):
        d.line(x - 115, 180, x + 115, 180)
        d.line(x, 210, x, 40)
        d.arrow(x, 180, x + 60, 100, BLUE)
        d.arrow(x, 180, x - 46, 88, GREY)
        d.arrow(x, 180, x + tip[0] * 1.3, 180 - tip[1] * 1.05, colour)
        d.text(x + 54, 92, "z", "middle", BLUE)
        d.text(x - 54, 84, "z_cf", "end", GREY)
        d.text(x + tip[0] * 1.3 + 8, 180 - tip[1] * 1.05 + 4, "T", "start", colour)
        d.text(x + 119, 184, "round", "start", GREY, 11)
        d.text(x - 119, 184, "square", "end", GREY, 11)
        d.text(x - 6, 36, "smiling", "middle", GREY, 11)
        d.text(x, 240, name, colour=colour)
    return d


def soft_groups() -> Drawing:
    """Where DSOP's direction comes from: words, soft memberships, two means, a line."""
    d = Drawing(700, 260)
    d.box(20, 50, 140, 40, "“round face”, …", BLUE)
    d.box(20, 150, 140, 40, "“square face”, …", ORANGE)
    d.box(210, 34, 180, 176, "", GREY)
    for i, q in enumerate(("0.9 round, 0.1 square", "0.7 round, 0.3 square", "0.4 round, 0.6 square", "…")):
        d.text(300, 70 + 38 * i, q)
    for y, mean, colour in ((70, "soft mean\nof round", BLUE), (170, "soft mean\nof square", ORANGE)):
        d.arrow(160, y, 208, y, colour)
        d.arrow(390, y, 438, y, colour)
        d.box(440, y - 22, 100, 44, mean, colour)
    d.arrow(540, 170, 590, 132, GREEN)
    d.arrow(540, 70, 590, 108, GREEN)
    d.box(592, 98, 90, 44, "the line\nU", GREEN)
    d.text(300, 24, "every face, by the words", size=12, colour=GREY)
    d.caption(
        244, "No label is read. Each class counts the same in a mean; only sums and counts leave a client."
    )
    return d


def unbalanced_means() -> Drawing:
    """Plain means of groups that smile at different rates differ by the smile, too."""
    d = Drawing(700, 260)
    for x, balanced in ((60, False), (400, True)):
        d.line(x, 200, x + 250, 200)
        d.line(x + 10, 220, x + 10, 40)
        d.text(x + 250, 218, "shape", "end", GREY, 11)
        d.text(x + 16, 48, "smile", "start", GREY, 11)
        for dx, dy in ((190, 70), (200, 84), (210, 64), (196, 160)):
            d.dot(x + dx, dy, BLUE)
        for dx, dy in ((50, 170), (60, 156), (70, 176), (58, 70)):
            d.dot(x + dx, dy, ORANGE, square=True)
        ends = (143, 95) if not balanced else (116, 119)
        d.arrow(x + 60, ends[0], x + 198, ends[1], GREEN)
        d.text(
            x + 130, 246, "each class counts the same" if balanced else "plain means: the line holds smile"
        )
    return d


def same_line() -> Drawing:
    """CDFP shifts along the line that DSOP removes: after the projection nothing is left of the shift."""
    d = Drawing(700, 230)
    d.line(40, 180, 320, 180)
    d.text(330, 184, "U", "start")
    d.dot(250, 80, BLUE)
    d.dot(90, 80, ORANGE, square=True)
    d.arrow(240, 80, 102, 80)
    d.text(170, 68, "CDFP’s shift")
    d.text(256, 64, "z", "start", BLUE)
    d.text(80, 64, "z_cf", "end", ORANGE)
    d.arrow(370, 120, 440, 120)
    d.text(405, 108, "DSOP")
    d.line(500, 40, 500, 200)
    d.dot(500, 80, BLUE)
    d.text(514, 76, "z and z_cf: one arrow,", "start", GREEN)
    d.text(514, 93, "one answer", "start", GREEN)
    d.caption(220, "The shift lies along U, and the projection takes away all that lies along U.")
    return d


def parts_in_the_loop() -> Drawing:
    """Where the learner's four functions act in a round."""
    d = Drawing(700, 280)
    d.box(20, 40, 330, 180, "", GREY)
    d.text(185, 62, "every client")
    d.box(40, 80, 130, 50, "project\nits rows", ORANGE)
    d.box(200, 80, 130, 50, "trains P with\ncf_loss", ORANGE)
    d.arrow(170, 105, 198, 105)
    d.box(200, 155, 130, 50, "judges others’\nclass texts", GREY)
    d.box(440, 40, 240, 180, "", BLUE)
    d.text(560, 62, "server")
    d.box(456, 80, 100, 50, "peer_weights", ORANGE)
    d.box(580, 80, 80, 50, "fuse", ORANGE)
    d.arrow(556, 105, 578, 105)
    d.arrow(330, 98, 454, 98, GREEN)
    d.arrow(330, 180, 454, 122, GREEN)
    d.arrow(620, 132, 560, 190, BLUE)
    d.text(500, 195, "the next P", colour=BLUE)
    d.arrow(438, 205, 352, 205, BLUE)
    d.caption(258, "orange: your functions of lessons 05 to 08; everything else is the library’s")
    return d


def from_counts() -> Drawing:
    """What a released CLIP's published answers keep, and what counts of them have lost."""
    d = Drawing(700, 190)
    d.box(20, 20, 130, 50, "photographs", GREY)
    d.box(20, 90, 130, 50, "two sentences", ORANGE)
    d.box(195, 50, 110, 60, "released\nCLIP", BLUE)
    d.box(350, 50, 140, 60, "answers,\none per photograph", GREY)
    d.box(540, 50, 140, 60, "counts by group,\nlabel and answer", GREEN)
    d.arrow(150, 45, 193, 70)
    d.arrow(150, 115, 193, 92)
    d.arrow(305, 80, 348, 80)
    d.arrow(490, 80, 538, 80)
    d.text(610, 135, "enough for rates and gaps,", size=12, colour=GREEN)
    d.text(610, 151, "their intervals and tests", size=12, colour=GREEN)
    d.text(420, 135, "needed to compare two", size=12, colour=GREY)
    d.text(420, 151, "models on the same faces", size=12, colour=GREY)
    d.text(20, 165, "other words, another classifier", "start", ORANGE, 12)
    return d


def who_does_what() -> Drawing:
    """The parts of the course: inside a client, at the server, at the audit, each with its lesson."""
    d = Drawing(700, 290)
    d.text(240, 24, "a client; its pictures stay here", colour=GREY)
    d.box(20, 34, 440, 196, "", GREY)
    d.box(36, 60, 100, 48, "pictures")
    d.box(36, 150, 100, 28, "prompt", ORANGE)
    d.box(36, 184, 100, 28, "class words", GREY)
    for y, tower in ((60, "image tower\n(frozen)"), (156, "text tower\n(frozen)")):
        d.arrow(136, y + 24, 170, y + 24)
        d.box(172, y, 100, 48, tower, GREY)
        d.arrow(272, y + 24, 332, 118 if y == 60 else 144)
    d.box(334, 106, 110, 50, "which sentence\nfits best?", GREEN)
    d.box(540, 60, 140, 50, "server: mean of\nthe prompts")
    d.arrow(462, 76, 538, 76, ORANGE)
    d.arrow(538, 96, 464, 96, BLUE)
    d.text(500, 68, "prompt", colour=ORANGE, size=12)
    d.box(540, 170, 140, 50, "audit: what gap\nbetween groups?", GREEN)
    d.arrow(610, 110, 610, 168, GREEN)
    d.text(602, 144, "tried on test faces", "end", GREEN, 12)
    for x, y, lessons in (
        (389, 98, "01"),
        (86, 143, "04, 06"),
        (318, 80, "07"),
        (610, 52, "05, 08"),
        (610, 236, "02, 03, 10"),
    ):
        d.text(x, y, f"lesson{'s' * (len(lessons) > 2)} {lessons}", colour=RED, size=12)
    d.caption(258, "Only the orange part is trained or sent. Three lessons try to make the gap smaller:")
    d.caption(276, "06 in the training of the prompt, 07 in the pictures’ arrows, 08 in the server’s mean.")
    return d


def rows_to_finding() -> Drawing:
    """From a table of predictions to a finding, or to what could not be judged."""
    d = Drawing(700, 220)
    steps = (
        (15, "one row a face:\nlabel, answer,\ngroup", GREY),
        (165, "a rate for\neach group,\nwith its n", BLUE),
    )
    for x, step, colour in (*steps, (315, "gap: largest\nminus smallest\nrate", ORANGE)):
        d.box(x, 40, 120, 64, step, colour)
        d.arrow(x + 120, 72, x + 148, 72)
    d.box(465, 20, 105, 104, "its interval\n\nchance’s gap\n\ncorrected p", BLUE)
    d.arrow(570, 50, 588, 50, GREEN)
    d.arrow(570, 96, 588, 96, GREY)
    d.box(590, 28, 96, 44, "differences\nfound", GREEN)
    d.box(590, 76, 96, 44, "no difference\nfound", GREY)
    d.arrow(225, 104, 225, 148, ORANGE)
    d.box(165, 150, 270, 40, "0 of 0, or too few: could not be judged", ORANGE)
    d.text(450, 167, "“none found” is not “none there”:", "start", GREY, 12)
    d.text(450, 183, "see the smallest detectable gap", "start", GREY, 12)
    return d


def rows_to_clients() -> Drawing:
    """How fvlfp train divides a table: test rows apart, the others to clients, a part of each for choices."""
    d = Drawing(700, 260)
    d.box(20, 30, 110, 130, "two thirds\nof the rows", GREY)
    d.box(20, 166, 110, 66, "one third:\ntest", GREEN)
    for k, length in enumerate((230, 130, 170)):
        y = 30 + 48 * k
        d.arrow(130, 95, 198, y + 17, GREY)
        d.text(260, y + 22, f"client {k + 1}", anchor="end")
        d.box(270, y, 0.8 * length, 34, "train", ORANGE)
        d.box(270 + 0.8 * length, y, 0.2 * length, 34, "val" if length > 150 else "", BLUE)
    d.text(520, 52, "train: here the prompts learn", "start", ORANGE, 12)
    d.text(520, 98, "val: here the strength of", "start", BLUE, 12)
    d.text(520, 114, "DSOP is chosen, for instance", "start", BLUE, 12)
    d.arrow(130, 199, 268, 199, GREEN)
    d.box(270, 176, 220, 46, "the audit, after training:\nno client holds these rows", GREEN)
    d.caption(250, "Clients differ in size and in kind, as real owners do. The seed decides who gets what.")
    return d


def folded() -> Drawing:
    """What export multiplies together, and the way of a new picture through it."""
    d = Drawing(700, 240)
    parts = (
        ("class texts, made\nby the prompts", ORANGE),
        ("projection\n(lesson 07)", GREEN),
        ("scale of\nCLIP", GREY),
    )
    for k, (part, colour) in enumerate(parts):
        d.box(20 + 160 * k, 24, 130, 48, part, colour)
        if k:
            d.text(5 + 160 * k, 53, "×", size=18)
    d.arrow(470, 48, 528, 48)
    d.text(499, 36, "export", size=12)
    d.box(530, 24, 150, 48, "W, bias, M, shift:\nnumbers in one file")
    d.arrow(605, 72, 470, 148, BLUE)
    for x, width, step, colour in (
        (20, 90, "new picture", GREY),
        (140, 96, "image tower\n(frozen)", GREY),
        (266, 36, "z", GREY),
        (332, 194, "(W z + bias) / |M z + shift|", BLUE),
        (556, 64, "softmax", GREY),
        (650, 36, "0.2\n0.8", GREEN),
    ):
        d.box(x, 150, width, 44, step, colour)
        if x < 650:
            d.arrow(x + width, 172, x + width + 28, 172)
    d.caption(
        224, "Whoever has the frozen image tower and the file needs nothing else: no prompt, no text tower."
    )
    return d


def one_number() -> Drawing:
    """One number of the prompts from five clients: plain mean and trimmed mean, with a liar at two places."""
    d = Drawing(700, 290)
    honest = (0.8, 1.0, 1.1, 1.3)
    for row, (name, lie, trim) in enumerate(
        (
            ("plain mean", -1.0, 0),
            ("plain mean", -1.8, 0),
            ("trimmed mean", -1.0, 1),
            ("trimmed mean", -1.8, 1),
        )
    ):
        y = 44 + 52 * row
        d.text(120, y + 5, name, "end")
        d.line(140, y, 660, y)
        values = sorted((lie, *honest))
        kept = values[trim : len(values) - trim]
        for value in values:
            shade = GREY if value not in kept else RED if value == lie else BLUE
            d.dot(_place(value), y, shade, square=value == lie)
        d.text(_place(lie), y + 22, f"{lie:g}".replace("-", "−"), colour=RED, size=12)
        mean = sum(kept) / len(kept)
        d.arrow(_place(mean), y + 28, _place(mean), y + 8, GREEN)
        d.text(_place(mean) - 8, y + 26, f"{mean:.2f}", "end", GREEN, 12)
    d.line(_place(1.05), 26, _place(1.05), 232, BLUE)
    d.text(_place(1.05), 20, "mean of the honest four: 1.05", colour=BLUE, size=12)
    d.caption(258, "Square: the liar. Grey: dropped, and each time an honest value is dropped with the lie.")
    d.caption(276, "A liar further out moves the plain mean further; the trimmed mean stays at 0.97.")
    return d


def _place(value: float) -> float:
    """Where a number lies on the lines of `one_number`."""
    return 440 + 150 * value


def clip_and_noise() -> Drawing:
    """Clipping bounds what one client moves; noise wider than that hides whether it took part."""
    d = Drawing(700, 260)
    d.circle(150, 120, 80, BLUE)
    for x, y in ((190, 82), (178, 168), (96, 92)):
        d.arrow(150, 120, x, y, GREEN)
    d.line(150, 120, 296, 66, RED)
    d.arrow(150, 120, 225, 92, RED)
    d.text(150, 226, "updates, cut at the length B", colour=BLUE)
    d.text(232, 50, "a long update is cut", "start", RED, 12)
    d.arrow(330, 120, 400, 120)
    d.text(365, 108, "mean + noise", size=12)
    for x, colour in ((520, ORANGE), (546, BLUE)):
        d.circle(x, 120, 84, colour)
        d.dot(x, 120, colour, square=colour == BLUE)
    d.text(424, 38, "without client k", "middle", ORANGE, 12)
    d.text(640, 38, "with client k", "middle", BLUE, 12)
    d.text(533, 226, "where the noisy result mostly lies")
    d.caption(250, "The more the two areas overlap, the less a result says about whether client k took part.")
    return d


def same_counts() -> Drawing:
    """Two pairs of models with equal counts: they agree on every face, or differ on four."""
    d = Drawing(700, 220)
    for x, second, words in (
        (20, "++++++−−", "the same two wrong: no face differs"),
        (370, "−−++++++", "other two wrong: four faces differ"),
    ):
        for y, model, answers in ((40, "A", "++++++−−"), (84, "B", second)):
            d.text(x + 16, y + 22, f"model {model}", "start", size=12)
            for i, answer in enumerate(answers):
                d.box(x + 72 + 30 * i, y, 26, 34, answer, GREEN if answer == "+" else ORANGE)
        d.text(x + 190, 28, "eight faces", colour=GREY, size=12)
        d.text(x + 190, 144, words)
        d.text(x + 190, 168, "counts: 6 of 8 and 6 of 8", colour=GREY)
    d.line(350, 20, 350, 176)
    d.caption(
        204,
        "+ right, − wrong. Only the rows tell the two cases apart; a paired interval depends on which it is.",
    )
    return d


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "gap": gap,
    "two_towers": two_towers,
    "rates": rates,
    "two_sources": two_sources,
    "three_formulas": three_formulas,
    "undefined_rate": undefined_rate,
    "words_and_vectors": words_and_vectors,
    "anchor": anchor,
    "drift": drift,
    "contrastive": contrastive,
    "prompt_in_the_tower": prompt_in_the_tower,
    "federated_round": federated_round,
    "shift": shift,
    "projection": projection,
    "using_a_run": using_a_run,
    "deployment": deployment,
    "deadline": deadline,
    "liars": liars,
    "masks": masks,
    "your_folder": your_folder,
    "dealt_anew": dealt_anew,
    "peers_judging": peers_judging,
    "opposite_errors": opposite_errors,
    "twins": twins,
    "leaning_text": leaning_text,
    "soft_groups": soft_groups,
    "unbalanced_means": unbalanced_means,
    "same_line": same_line,
    "parts_in_the_loop": parts_in_the_loop,
    "from_counts": from_counts,
    "who_does_what": who_does_what,
    "rows_to_finding": rows_to_finding,
    "rows_to_clients": rows_to_clients,
    "folded": folded,
    "one_number": one_number,
    "clip_and_noise": clip_and_noise,
    "same_counts": same_counts,
}


def drawn(source: str) -> dict[str, dict[str, str]]:
    """A markdown cell's attachments by file name; in base64, as JupyterLab and nbconvert want them."""
    names = re.findall(r"\(attachment:(\w+)\.svg\)", source)
    return {
        f"{name}.svg": {"image/svg+xml": base64.b64encode(DRAWINGS[name]().svg().encode()).decode()}
        for name in names
    }


def main() -> None:
    """Put every drawing into the cells that show it."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        before = nbformat.writes(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "markdown" and (attachments := drawn(cell.source)):
                cell["attachments"] = attachments
        if nbformat.writes(notebook) != before:
            nbformat.write(notebook, path)
            print(path.name)


if __name__ == "__main__":
    main()
