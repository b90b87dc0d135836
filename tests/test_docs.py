"""The pages: their links lead somewhere, and the commands and options that they name exist."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from trainer.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/*/*.md")} - {ROOT / "CHANGELOG.md"})


def test_every_link_to_a_file_leads_to_one():
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#\s:]+)[)#]", page.read_text())]
    assert len(links) > 100
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_every_command_and_option_that_a_page_names_exists(capsys):
    named = defaultdict(set)
    for page in (page for page in PAGES if page.parent.name != "results"):  # speed.md times mistyped options
        for command, words in re.findall(r"(?:^    |`)fewpair ([a-z]+)\b([^`\n#&;|]*)", page.read_text(), re.MULTILINE):
            named[command] |= {(option, page.name) for option in re.findall(r" (--[a-z][a-z-]+)(?![a-z.-])", words)}
    assert named.keys() <= COMMANDS.keys()
    for command, options in named.items():
        for words in ([], ["mean-teacher-compact"]) if command == "train" else ([],):
            with pytest.raises(SystemExit):
                main([command, *words, "--help"])
        said = capsys.readouterr().out + "--help-all --resume"
        assert [each for each in sorted(options) if each[0] not in said] == [], command
