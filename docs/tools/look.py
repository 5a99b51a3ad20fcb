"""Opens every page of the built site in headless Chromium, at 1,280 and 390 pixels, in light and dark colours.

    python docs/tools/look.py build/docs [CHROMIUM]

It prints each page that is wider than its window, each request to another address, each response that is an error and each message of an error,
and exits with 1 if there is one. It needs `playwright` and a Chromium, neither of which is in an extra.
"""

from __future__ import annotations

import functools
import http.server
import sys
import threading
from pathlib import Path
from typing import Any


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def findings(site: Path, chromium: str) -> list[str]:
    """Return what is wrong with the pages of a site, one line each."""
    from playwright.sync_api import sync_playwright

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base, found = f"http://127.0.0.1:{server.server_port}/", []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            for width in (1280, 390):
                context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
                page = context.new_page()
                page.on("request", lambda r: r.url.startswith((base, "data:", "blob:")) or found.append(f"requests {r.url}"))
                page.on("response", lambda r: r.status < 400 or found.append(f"status {r.status}: {r.url}"))
                page.on("console", lambda m: m.type != "error" or found.append(f"message: {m.text}"))
                page.on("pageerror", lambda e: found.append(f"error: {e}"))
                for file in sorted(site.rglob("*.html")):
                    name = file.relative_to(site).as_posix()
                    page.goto(base + name, wait_until="load")
                    wide, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
                    if wide > window:
                        found.append(f"{name}: {wide} pixels wide in a window of {window}, {scheme}")
                context.close()
        browser.close()
    server.shutdown()
    return found


if __name__ == "__main__":
    lines = findings(Path(sys.argv[1]), [*sys.argv, "/usr/bin/chromium"][2])
    print(*lines, sep="\n")
    sys.exit(bool(lines))
