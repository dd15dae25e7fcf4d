"""A headless Chromium with fonts of its own, so that a page is as wide on every machine as on this one."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from playwright.sync_api import Browser, sync_playwright

from .stack import PROJECT

HOME = PROJECT / ".local" / "browser"

FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{home}/fonts</dir>
  <dir>{home}/node_modules/@expo-google-fonts</dir>
  <cachedir>{cache}</cachedir>
  <match target="pattern">
    <test name="family" qual="any"><string>monospace</string></test>
    <edit name="family" mode="assign" binding="strong"><string>Roboto Mono</string><string>Zen Kaku Gothic New</string></edit>
  </match>
  <match target="pattern">
    <test name="family" compare="not_eq" qual="all"><string>Roboto Mono</string></test>
    <edit name="family" mode="append" binding="strong"><string>Open Sans</string><string>Zen Kaku Gothic New</string></edit>
  </match>
</fontconfig>
"""


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """The browser that `make .local/browser.ready` has unpacked; `folder` is for its fonts' cache."""
    fonts = folder / "fonts.conf"
    fonts.write_text(FONTS.format(home=HOME, cache=folder / "fonts"))
    environment = {
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        "FONTCONFIG_FILE": str(fonts),
        "LD_LIBRARY_PATH": str(HOME / "al2023" / "lib"),
    }
    with sync_playwright() as playwright:
        # Whoever runs the tests may be root, as in a container, and Chromium's sandbox refuses root.
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=HOME / "chromium", args=arguments, env=environment)
        yield browser
        browser.close()
