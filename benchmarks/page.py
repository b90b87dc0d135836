"""How soon the page answers, in Chromium: the first view, a dab on the canvas until its photo, a photo until its map.

fewpair serve & python -m benchmarks.page http://127.0.0.1:3000
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time

from playwright.sync_api import Page, sync_playwright

LOADS, DABS = 3, 20


STOPWATCH = """([pane, event]) => {
  const root = document.querySelector(`#${pane} [data-state]`);
  window.measured = new Promise((done) => root.addEventListener(event, () => {
    const began = performance.now();
    new MutationObserver((_, observer) => {
      if (root.dataset.state !== "current") return;
      observer.disconnect();
      done(performance.now() - began);
    }).observe(root, { attributes: true });
  }, { capture: true, once: true }));
}"""


def main(server: str) -> None:
    """Print the medians as a row of a table."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        first, dab, read = [], [], []
        for load in range(LOADS):
            page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.set_default_timeout(120_000)
            began = time.perf_counter()
            page.goto(f"{server}/ui/")
            page.wait_for_selector("#paint [data-state=current]")
            first.append(time.perf_counter() - began)
            if load == 0:
                page.wait_for_selector("#paint .variation")
                dab = [measured_dab(page, 20 + 15 * index) for index in range(DABS)]
            page.get_by_role("tab", name="Photo → map").click()
            page.wait_for_selector("#read .legend small")
            page.evaluate(STOPWATCH, ["read", "click"])
            page.locator("#read .scene").nth(1).click()
            read.append(page.evaluate("measured"))
            page.close()
        chromium.close()
    print("| load | first view with its photo s | dab to photo ms | photo to map ms |\n| ---: | ---: | ---: | ---: |")
    seconds, *milliseconds = (statistics.median(values) for values in (first, dab, read))
    print(f"| {os.getloadavg()[0]:.1f} | {seconds:.2f} | {milliseconds[0]:.0f} | {milliseconds[1]:.0f} |")


def measured_dab(page: Page, x: float) -> float:
    """Milliseconds from the press of the mouse until the photo shows what was painted."""
    box = page.locator("#paint .viewport").bounding_box()
    assert box is not None
    page.evaluate(STOPWATCH, ["paint", "pointerdown"])
    page.mouse.click(box["x"] + x, box["y"] + 100)
    elapsed: float = page.evaluate("measured")
    return elapsed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("server", help="its address, as http://127.0.0.1:3000")
    main(parser.parse_args().server)
