# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of the docs: python3 docs/images/draw.py. Plain SVG, no dependencies."""

import pathlib

HERE = pathlib.Path(__file__).resolve().parent
BLUE, GREEN, ORANGE, GREY, RED = "#cfe2f3", "#d9ead3", "#fce5cd", "#e6e6e6", "#f4cccc"


class Picture:
    def __init__(self, width: int, height: int):
        self.size = (width, height)
        self.parts: list[str] = []

    def box(self, x, y, w, h, text="", fill=BLUE, size=12):
        self.parts.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="3" fill="{fill}" stroke="#555"/>')
        lines = text.split("\n") if text else []
        for i, line in enumerate(lines):
            self.text(x + w / 2, y + h / 2 + 4 + (i - (len(lines) - 1) / 2) * (size + 3), line, "middle", size)

    def text(self, x, y, text, anchor="start", size=12):
        text = text.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}">{text}</text>')

    def arrow(self, x1, y1, x2, y2):
        self.parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#333" marker-end="url(#tip)"/>')

    def save(self, name: str):
        w, h = self.size
        tip = ('<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
               'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#333"/></marker></defs>')
        text = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
                f'font-family="sans-serif">\n<rect width="{w}" height="{h}" fill="white"/>\n{tip}\n')
        (HERE / f"{name}.svg").write_text(text + "\n".join(self.parts) + "\n</svg>\n")


def layers():
    p = Picture(900, 430)
    p.text(10, 20, "An arrow means: may include. Grey: also compiled into device code, includes only itself.")
    p.box(20, 40, 330, 34, "python/fulmen", ORANGE)
    p.box(20, 100, 330, 34, "src/ffi: exported TVM-FFI functions", ORANGE)
    p.box(20, 160, 150, 40, "src/ops\nchecks, launch", GREEN)
    p.box(200, 160, 150, 40, "src/plan\nsees no device", GREEN)
    p.box(380, 100, 150, 100, "src/cpu\nrows of kernels,\none object file per\ninstruction set", GREEN)
    p.box(560, 130, 150, 70, "src/cuda\nrows of kernels:\nkey, params, launch", GREEN)
    p.box(560, 60, 150, 40, "src/jit\ntext, cache, packs", GREEN)
    p.box(740, 100, 140, 100, "tests\nbenchmarks\nfuzz", RED)
    p.box(20, 250, 150, 40, "runtime\nbackends, threads", BLUE)
    p.box(380, 250, 150, 40, "cpu\nSIMD kernels", BLUE)
    p.box(560, 250, 150, 40, "cuda\nGPU kernels", GREY)
    p.box(740, 250, 140, 40, "reference\ndouble, with bounds", BLUE)
    p.box(200, 320, 150, 40, "attention\nvariant, state, plan", GREY)
    p.box(380, 320, 500, 40, "ops: one contract per op", BLUE)
    p.box(20, 380, 860, 36, "core: dtypes, TensorView, schema, Error, Executor (dtypes and math are grey)", GREY)
    for x1, y1, x2, y2 in ((185, 74, 185, 98), (95, 134, 95, 158), (95, 200, 95, 248), (275, 200, 275, 318),
                           (455, 200, 455, 248), (380, 180, 172, 262), (455, 290, 455, 318), (380, 275, 352, 328),
                           (635, 130, 635, 102), (635, 200, 635, 248), (635, 290, 635, 318), (560, 285, 352, 342),
                           (810, 200, 810, 248), (810, 290, 810, 318), (350, 340, 378, 340), (95, 290, 95, 378),
                           (275, 360, 275, 378), (560, 360, 560, 378), (140, 200, 225, 318), (740, 150, 712, 150)):
        p.arrow(x1, y1, x2, y2)
    p.save("layers")


def kv_layouts():
    p = Picture(720, 300)
    p.text(10, 22, "Ragged: requests one after the other; kv_indptr = [0, 3, 5, 9]")
    fills = [BLUE] * 3 + [GREEN] * 2 + [ORANGE] * 4
    for i, fill in enumerate(fills):
        p.box(20 + 56 * i, 34, 54, 30, f"token {i - (0, 0, 0, 3, 3, 5, 5, 5, 5)[i]}", fill, 11)
    p.text(540, 54, "request 0, 1, 2")
    layouts = (("NHD: a token's heads together", "th"), ("HND: a head's tokens together", "ht"))
    for row, (name, order) in enumerate(layouts):
        y = 110 + row * 90
        p.text(10, y, f"{name}, memory from left to right")
        for i in range(8):
            token, head = (i // 2, i % 2) if order == "th" else (i % 4, i // 4)
            p.box(20 + 86 * i, y + 10, 84, 34, f"token {token}\nhead {head}", (BLUE, GREEN)[head], 11)
    p.text(10, 285, "Each box is head_dim numbers with stride 1. All other strides are free.")
    p.save("kv_layouts")


def page_table():
    p = Picture(720, 300)
    p.text(10, 22, "kv_indptr = [0, 3, 4, 6]     page_size = 4")
    pages = [(5, BLUE), (0, BLUE), (3, BLUE), (6, GREEN), (1, ORANGE), (4, ORANGE)]
    p.text(10, 58, "kv_indices")
    for i, (page, fill) in enumerate(pages):
        p.box(100 + 60 * i, 40, 56, 28, str(page), fill)
        p.arrow(128 + 60 * i, 68, 67 + 90 * page, 128)
    p.text(480, 58, "last_page_len = [2, 4, 1]")
    used = {0: 4, 1: 4, 3: 2, 4: 1, 5: 4, 6: 4}
    fill_of = dict(pages)
    for page in range(7):
        p.text(67 + 90 * page, 145, f"page {page}", "middle")
        for slot in range(4):
            is_used = slot < used.get(page, 0)
            p.box(37 + 90 * page, 152 + 28 * slot, 60, 26, "token" if is_used else "free",
                  fill_of[page] if is_used else GREY, 10)
    p.text(10, 288, "Request 0 is pages 5, 0, 3: (3 - 1) * 4 + 2 = 10 tokens. Free slots are never read.")
    p.save("page_table")


def plan():
    p = Picture(720, 270)
    p.text(10, 22, "Keys from left to right; one row per tile of query rows")
    tiles = [(0, [(0, 200), (200, 400)]), (1, [(0, 150)]), (2, [(0, 100)])]
    y = 36
    for tile, items in tiles:
        p.text(10, y + 20, f"tile {tile}")
        for i, (begin, end) in enumerate(items):
            p.box(70 + begin, y, end - begin - 3, 30, f"item {tile}.{i}", (BLUE, GREEN, ORANGE)[tile])
        y += 38
    p.arrow(480, 51, 530, 51)
    p.box(534, 36, 150, 30, "merge 0.0 and 0.1", RED)
    p.text(10, 180, "Workers take the longest items first")
    lanes = ([("0.0", 200, BLUE), ("2.0", 100, ORANGE)], [("0.1", 200, BLUE), ("1.0", 150, GREEN)])
    for worker, items in enumerate(lanes):
        x = 90
        p.text(10, 212 + 38 * worker, f"worker {worker}")
        for name, width, fill in items:
            p.box(x, 192 + 38 * worker, width - 3, 30, name, fill)
            x += width
    p.save("plan")


def variant():
    p = Picture(720, 190)
    p.box(10, 60, 90, 44, "q · k", GREY)
    p.box(140, 20, 150, 40, "visible(row)\nwhich keys", BLUE)
    p.box(140, 110, 150, 40, "keep(row, j)\nmask", BLUE)
    p.box(330, 60, 130, 44, "logit(row, j, x)\nsoft cap, ALiBi", BLUE)
    p.box(500, 60, 90, 44, "exp2(s · z)\nscale_log2()", BLUE)
    p.box(630, 60, 80, 44, "Σ w v\nΣ w", GREY)
    p.box(600, 130, 110, 40, "sink(row)", BLUE)
    for line in ((100, 82, 138, 45), (100, 82, 138, 128), (290, 45, 328, 75), (290, 128, 328, 90), (460, 82, 498, 82),
                 (590, 82, 628, 82), (670, 130, 670, 106)):
        p.arrow(*line)
    p.text(10, 182, "Blue: what a variant may decide. Grey: every kernel's own business.")
    p.save("variant")


if __name__ == "__main__":
    for draw in (layers, kv_layouts, page_table, plan, variant):
        draw()
