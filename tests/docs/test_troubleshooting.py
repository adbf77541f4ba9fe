"""The page on errors and warnings has those that there are, and no other."""

import re

import messages

PAGE = messages.PACKAGE.parent / "docs" / "troubleshooting.md"
# Where a user of the trainer meets an error; those of the other commands name what is wrong.
OF_THE_TRAINER = ["config.py", "_compat.py", "trainer", "integrations", "distributed", "data", "hiding"]


def quoted(until=None):
    """The messages that the page quotes, all or those above a heading."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^> (.+)$", text[: text.index(until)] if until else text, re.MULTILINE)
    assert len(found) == len(set(found)) > 80
    return found


def pattern(quote):
    parts = (re.escape(part) for part in quote.removesuffix(messages.HOLE).split(messages.HOLE))
    return re.compile(".*?".join(parts))


def is_said(quote, said):
    longest = max(quote.split(messages.HOLE), key=len)
    return any(longest in text and pattern(quote).search(text) for text in said)


def test_what_the_page_quotes_is_said_by_the_package():
    # A `%s` of a warning is filled in too.
    said = {re.sub(r"%(\.\w+|[sdr])", messages.HOLE, text) for text in messages.written()}
    missing = [quote for quote in quoted() if not is_said(quote, said)]
    assert not missing, "no message of the package begins like this any more"


def test_every_message_of_the_trainer_has_its_heading():
    patterns = [pattern(quote) for quote in quoted(until="## Images from formulas")]
    without = []
    for message in messages.raised(*OF_THE_TRAINER):
        text = re.sub(r"%(\.\w+|[sdr])", messages.HOLE, message.text)
        if not any(found.match(text) for found in patterns):
            without.append(f"{message.file}:{message.line}: {text[:80]}")
    assert not without, "quote their first words in docs/troubleshooting.md, with the way out"


def test_every_quote_stands_below_a_heading_and_above_a_way_out():
    for section in re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, body = section.split("\n", 1)
        quotes, _, rest = body.strip().partition("\n\n")
        assert quotes.startswith("> "), title
        assert re.sub(r"^#+ .*$", "", rest, flags=re.MULTILINE).strip(), f"{title!r} has no way out"
