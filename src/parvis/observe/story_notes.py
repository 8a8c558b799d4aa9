"""What the picture of a recipe says of its story: counts on nodes and on the ways between them."""

from __future__ import annotations

from parvis.observe.hops import REQUEST
from parvis.observe.story import NodeCount, Story
from parvis.recipe.draw_svg import NodeNote, Notes


def notes_of(story: Story) -> Notes:
    """Return what the picture of a recipe is to say of each node and of each way between two."""
    ways: dict[tuple[int, int], int] = {}
    for edge in story.edges:
        if edge.source != edge.target:
            ways[edge.source, edge.target] = ways.get((edge.source, edge.target), 0) + edge.count
    return Notes(
        nodes={number: _note(node) for number, node in story.nodes.items() if number != REQUEST},
        edges={way: f"{count:,}" for way, count in ways.items()},
    )


def _note(node: NodeCount) -> NodeNote:
    if node.state == "idle":
        return NodeNote("nothing yet", "idle")
    ready = node.outstanding - node.waiting
    counts = (
        (node.handled - node.given_up, "done"),
        (ready, "to do" if node.state != "silent" else "handed over"),
        (node.waiting, "held back"),
        (node.given_up, "given up"),
    )
    said = [f"{count:,} {word}" for count, word in counts if count > 0]
    return NodeNote(", ".join(said) or f"{node.sent:,} sent", node.state)
