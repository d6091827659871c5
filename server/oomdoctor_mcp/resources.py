"""Resources: the catalogues and the last results, for whoever wants to look something up."""

from __future__ import annotations

import json

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError

from oomdoctor_mcp.reports import Reports
from oomdoctor_mcp.state import Ctx, State, state_of

_JSON = "application/json"


def gpus() -> str:
    """Every card of the catalogue: name, label, total bytes, compute capability. Names are what gpu takes."""
    from oomdoctor.hardware import cards

    return json.dumps(
        [
            {
                "name": card.name,
                "label": card.label,
                "total_bytes": card.total_bytes,
                "compute_capability": card.compute_capability,
            }
            for card in cards()
        ]
    )


def models() -> str:
    """Every model whose configs are built in: its id and pipeline class. Others need their JSON configs on disk."""
    from oomdoctor.models import catalogue

    return json.dumps(
        [
            {"model": name, "class": entry.get("class") or entry.get("kind")}
            for name, entry in sorted(catalogue().items())
        ]
    )


def techniques() -> str:
    """Every technique a strategy can be made of: what it does, what it costs, its options, its documentation."""
    from oomdoctor.techniques import all_techniques

    return json.dumps(
        [
            {
                "name": name,
                "summary": known.summary,
                "quality": known.quality.value,
                "tags": known.tags,
                "options": list(known.keys),
                "docs": known.docs,
            }
            for name, known in all_techniques().items()
        ]
    )


async def report(report_id: str, ctx: Ctx) -> str:
    """One complete result, with everything a concise answer left out."""
    found = state_of(ctx).reports.get(report_id)
    if found is None:
        raise ResourceError("There is no such report any more: only the last ones are kept. Call the tool again.")
    return found.text


def add_resources(server: MCPServer[State], kept: Reports) -> None:
    """Registers all of them."""

    def reports() -> str:
        """The last results, newest first: where each is and which tool made it."""
        return json.dumps(kept.index())

    server.resource("oomdoctor://gpus", title="Cards", mime_type=_JSON)(gpus)
    server.resource("oomdoctor://models", title="Models", mime_type=_JSON)(models)
    server.resource("oomdoctor://techniques", title="Techniques", mime_type=_JSON)(techniques)
    server.resource("oomdoctor://reports", title="Last results", mime_type=_JSON)(reports)
    server.resource("oomdoctor://reports/{report_id}", title="A result", mime_type=_JSON)(report)
