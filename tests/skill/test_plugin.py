"""The plugin's two manifests agree with the package and with what lies in the repository."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def manifest(name: str) -> dict[str, Any]:
    loaded = json.loads((ROOT / ".claude-plugin" / name).read_text("utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def project(key: str) -> str:
    found = re.search(rf'^{key} = "(.*)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert found
    return found[1]


def test_the_plugin_says_what_the_package_says():
    plugin = manifest("plugin.json")
    assert plugin["version"] == project("version")
    assert plugin["description"] == project("description")
    assert plugin["license"] == project("license")


def test_the_server_is_started_with_its_dependencies_by_the_console_command():
    """An installed plugin is a bare copy of the repository: no environment, no build."""
    server = manifest("plugin.json")["mcpServers"]["oom-doctor"]
    assert server["command"] == "uvx"
    assert server["args"] == ["--from", "${CLAUDE_PLUGIN_ROOT}", "oom-doctor", "serve"]
    assert re.search(r"^oom-doctor = ", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)


def test_skills_is_a_folder_of_the_repository():
    skills = manifest("plugin.json")["skills"]
    assert skills.startswith("./")
    assert (ROOT / skills).is_dir()


def test_the_marketplace_offers_this_plugin():
    (offered,) = manifest("marketplace.json")["plugins"]
    plugin = manifest("plugin.json")
    assert (offered["name"], offered["description"]) == (plugin["name"], plugin["description"])
    assert offered["source"] == "./"


def test_no_mcp_json_at_the_root():
    """Clients would start it as a project's server, where ${CLAUDE_PLUGIN_ROOT} has no value."""
    assert not (ROOT / ".mcp.json").exists()
