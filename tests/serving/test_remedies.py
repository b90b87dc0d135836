"""What to do about a refusal is said in the words of whoever reads it: of the API, the command line, or the page."""

import ast
import re
from pathlib import Path

import pytest

import serving
from serving.errors import Refusal
from serving.remedies import COMMAND, PAGE, in_words

# Where the refusals are raised that reach somebody at the command line, whose model runs here or on a server, or at the page.
HERE = ("answers", "imaging", "operations", "palette", "report", "shelf", "tiles", "translator")
ANYWHERE = (*HERE, "admission", "doors", "gate")
NEVER_ASKED = {"bad_seed"}  # the command line's own parser refuses it
NOT_ON_THE_PAGE = {"no_classes", "slow_body", "tiling_forbidden", "too_fragmented", "too_wide_for_webp"}  # it does not ask for these
API = re.compile(r"\b(?:GET|POST|DELETE)\b|/segment|/v1|\w=\w|curl|X-[A-Z]")
OPERATOR = re.compile(r"FEWPAIR_")


def remedies(module):
    """Code and words of every remedy that a module's refusals carry."""
    for node in ast.walk(ast.parse((Path(serving.__file__).parent / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refusal" and isinstance(node.args[1], ast.Constant):
            for said in (keyword.value for keyword in node.keywords if keyword.arg == "hint"):
                yield node.args[1].value, "".join(part.value for part in ast.walk(said) if isinstance(part, ast.Constant))


@pytest.mark.parametrize(
    ("modules", "table", "foreign", "spared"),
    [(ANYWHERE, COMMAND, [API], NEVER_ASKED), ((*HERE, "gate"), PAGE, [API, OPERATOR], NOT_ON_THE_PAGE)],
    ids=["the command line", "the page"],
)
def test_a_remedy_in_the_words_of_the_api_has_one_for(modules, table, foreign, spared):
    found = {code: words for module in modules for code, words in remedies(module) if any(word.search(words) for word in foreign)}
    assert len(found) > 8
    assert found.keys() - spared <= table.keys()
    assert not [words for words in table.values() if any(word.search(words) for word in foreign)]


def test_a_remedy_that_everybody_understands_is_left_as_it_is():
    refusal = Refusal(503, "overloaded", "the server is full.", hint="Try again in a moment.", headers={"Retry-After": "1"})
    assert in_words(refusal, COMMAND, classes="x") is refusal
    stray = in_words(Refusal(400, "unknown_colours", "stray colours.", hint="snap=true"), COMMAND, classes="the card")
    assert str(stray) == (
        "stray colours. Give a PNG in the class colours, which the card shows (JPEG smears them), or say --snap to take the nearest."
    )
