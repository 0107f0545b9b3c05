"""The stages of a call: the page that shows them says what the code says."""

from pathlib import Path

import pytest

from asgi_bridge.adapter.stage import OPEN, Event, Moves, Stage

EVENTS: dict[str, Moves] = {name: moves for name, moves in vars(Event).items() if name.isupper()}
PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()


def shown() -> dict[tuple[Stage, str], Stage]:
    """The moves in the page's table."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"]
    (head,) = [number for number, row in enumerate(rows) if row[0] == "stage"]
    names = rows[head][1:]
    found = {}
    for row in rows[head + 2 :]:
        stages = [word for word in row[0].split(", ") if word in Stage.__members__]
        if not stages:
            break
        for stage in stages:
            found.update({(Stage[stage], name): Stage[cell] for name, cell in zip(names, row[1:], strict=True) if cell})
    return found


def test_the_page_shows_the_moves_of_the_code() -> None:
    assert shown() == {(stage, name): after for name, moves in EVENTS.items() for stage, after in moves.items()}


@pytest.mark.parametrize("stage", Stage)
def test_an_answer_goes_out_at_most_once(stage: Stage) -> None:
    """No event leads from a stage with an answer to one that waits for an answer."""
    reached, rest = set(), [stage]
    while rest:
        found = rest.pop()
        if found not in reached:
            reached.add(found)
            rest += [moves[found] for moves in EVENTS.values() if found in moves]
    waits = {*OPEN, Stage.PARKED}
    assert stage in waits or not waits & reached
