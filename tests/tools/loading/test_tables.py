"""What a weight file is said to hold, when only a config tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

transformers = pytest.importorskip("transformers")

from oomdoctor.loading import tables  # noqa: E402

CONFIG = {"architectures": ["T5EncoderModel"], "d_model": 32, "d_ff": 64, "d_kv": 8, "num_heads": 4, "num_layers": 1,
          "vocab_size": 100, "model_type": "t5", "tie_word_embeddings": True}  # fmt: skip


def test_a_tied_weight_is_stored_once_also_while_a_loader_leaves_ties_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIG))
    marker = {"library": "transformers", "class": "T5EncoderModel", "config": str(file), "dtype": "bfloat16"}
    usual = tables._from_class(marker)
    monkeypatch.setattr(transformers.PreTrainedModel, "tie_weights", lambda self, *args, **options: None)
    while_loading = tables._from_class(marker)
    assert [name for name in usual if "shared" in name or "embed_tokens" in name] == ["shared.weight"]
    if hasattr(transformers.PreTrainedModel, "get_expanded_tied_weights_keys"):  # transformers 5
        assert while_loading == usual
