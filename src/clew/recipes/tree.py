"""Show the trees of a search: one page that needs no network, opened in a browser."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from clew.core.errors import InvalidValue, RunDirectoryError

EXAMPLES = """
clew tree runs/mcts
clew tree runs/mcts --problem 17
clew tree runs/mcts --problem countdown:3-5-7-9=24 --out tree.html
clew tree runs/mcts --serve
"""


@dataclass(frozen=True, kw_only=True)
class TreeConfig:
    """Write a page that shows the trees of a search, and open it."""

    run: tyro.conf.Positional[Path]
    """Run directory of clew search, or one saved tree."""
    problem: str | None = None
    """Id of one problem, or its place from 0; left out, the page has all of them."""
    out: Path | None = None
    """HTML file to write; left out, tree.html in the run directory."""
    serve: bool = False
    """Serve the page on 127.0.0.1 until Ctrl-C, and write no file."""
    port: int = 0
    """Port to serve it on; 0 takes a free one."""
    no_open: bool = False
    """Do not open a browser."""
    json: bool = False
    """Print one JSON object: page, problems, nodes."""


CONFIG = TreeConfig


def main(config: TreeConfig) -> int:
    from clew.data.files import write_text_atomically
    from clew.report.tree_page import read_trees, render

    if not 0 <= config.port < 1 << 16:
        raise InvalidValue("port", config.port, "a number from 0 to 65535", "use 0 for a free one")
    if config.out is not None and not config.out.absolute().parent.is_dir():
        accepted = "a file in a directory that exists"
        raise RunDirectoryError(f"--out {config.out}: its directory does not exist", accepted, "make it first")
    shown = read_trees(config.run, config.problem)
    page = render(shown)
    if config.serve:
        return serve(page, config)
    path = config.out or (config.run if config.run.is_dir() else config.run.parent) / "tree.html"
    write_text_atomically(path, page)
    if config.json:
        nodes = sum(one.num_nodes for one in shown.trees)
        print(json.dumps({"page": str(path), "problems": len(shown.trees), "nodes": nodes}))
    else:
        print(path)
        open_page(path.absolute().as_uri(), config)
    return 0


def serve(page: str, config: TreeConfig) -> int:
    """Answer with `page`, whatever is asked for, to this machine alone, until Ctrl-C."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    body = page.encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    try:
        server = HTTPServer(("127.0.0.1", config.port), Handler)
    except OSError as error:
        accepted = "a port that is free and that this user may use"
        raise InvalidValue("port", config.port, accepted, f"use 0 for a free one ({error.strerror})") from None
    with server:
        url = f"http://127.0.0.1:{server.server_port}/"
        print(json.dumps({"page": url}) if config.json else url, flush=True)
        if not config.json:
            open_page(url, config)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)
    return 0


def open_page(url: str, config: TreeConfig) -> None:
    """Open `url` in a browser, if a person with a screen is there."""
    screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if screen and sys.stdout.isatty() and not config.no_open:
        import webbrowser

        webbrowser.open(url)
