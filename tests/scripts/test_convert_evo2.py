import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from encoders.genetics.caduceus_checkpoint import write_random_checkpoint
from encoders.genetics.encoder_choice import load_encoder

spec = importlib.util.spec_from_file_location(
    "evo2_official", Path(__file__).parents[1] / "encoders" / "genetics" / "evo2" / "official.py"
)
official = importlib.util.module_from_spec(spec)
spec.loader.exec_module(official)


@pytest.fixture
def run(capsys):
    main = importlib.import_module("scripts.convert_evo2").main

    def run(*options):
        code = main(list(map(str, options)))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def source(tmp_path):
    config = official.config()
    return official.write(tmp_path / "evo2", config=config, weights=official.tensors(config), parts=2)


def test_a_converted_model_is_the_same_model(run, source, tmp_path):
    output = tmp_path / "models" / "ours"
    code, out, err = run("--source", source, "--output", output, "--shard_gb=0.0002")
    assert code == 0, err
    assert "77 tensors, 289,912 numbers" in out and "files: 3" in out and "left out: 11 entries" in out
    assert {path.suffix for path in output.iterdir()} == {".safetensors", ".json", ".md"}
    a, b = load_encoder(str(source)), load_encoder(str(output))
    sequences = ["ACGTTGCA" * 9, "ACGT"]
    np.testing.assert_array_equal(a.encode(sequences), b.encode(sequences))
    damaged = next(output.glob("*.safetensors"))
    content = bytearray(damaged.read_bytes())
    content[-7] ^= 8
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match="E_HASH"):
        load_encoder(str(output))


def test_what_cannot_be_converted_is_one_sentence(run, source, tmp_path):
    write_random_checkpoint(tmp_path / "caduceus")
    (tmp_path / "empty").mkdir()
    for options, told in (
        (["--source", source, "--output", tmp_path], "exists; pass an --output"),
        (["--source", source, "--output", tmp_path / "o", "--shard_gb=0"], "shard_gb is 0"),
        (
            ["--source", tmp_path / "caduceus", "--output", tmp_path / "o"],
            "is a Caduceus, which needs no conversion",
        ),
        (["--source", tmp_path / "empty", "--output", tmp_path / "o"], "none of the known genome models"),
    ):
        code, _, err = run(*options)
        assert code == 2 and told in err and "Traceback" not in err
    assert not (tmp_path / "o").exists()
