"""Model files: what is saved comes back; what is cut short, of another version or not ours says so in one line."""

from __future__ import annotations

import errno
import os

import pytest

from pyfocus.errors import ArgumentError, ReadError, WriteError

torch = pytest.importorskip("torch")

from pyfocus import nn  # noqa: E402
from pyfocus.nn import checkpoint  # noqa: E402
from pyfocus.nn.checkpoint import build_network, load_model, read_pack, save_model, write_pack  # noqa: E402

FACTS = {"steps": 12, "psnr": 31.5, "note": "né", "list": [1, None, True], "deep": {"a": "b"}}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.FocusDeep("rggb", 2, 8, modulated=True, skip="mean")


@pytest.fixture()
def model(net, tmp_path):
    save_model(tmp_path / "m.pt", net, FACTS)
    return tmp_path / "m.pt"


def test_a_model_comes_back_with_its_facts(net, model):
    again, facts = load_model(model)
    assert facts == FACTS and again.config == net.config and not again.training
    burst = torch.rand(1, 2, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(burst), net.eval()(burst))


@pytest.mark.parametrize(
    "made", [lambda: nn.FocusDeep("mosaic", 3, 8, reference="first"), lambda: nn.UNet("rgb", 2, 8)]
)
def test_config_makes_the_same_network(made):
    net = made()
    again = build_network(type(net).__name__, net.config)
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    assert shapes == {key: value.shape for key, value in again.state_dict().items()} and again.config == net.config


def test_the_same_model_gives_the_same_bytes_and_its_size(net, model, tmp_path):
    assert save_model(tmp_path / "again.pt", net, FACTS) == model.stat().st_size
    assert (tmp_path / "again.pt").read_bytes() == model.read_bytes()


def test_every_cut_says_so(model, tmp_path):
    data = model.read_bytes()
    for length in (0, 1, 30, len(data) // 2, len(data) - 1):
        cut = tmp_path / "cut.pt"
        cut.write_bytes(data[:length])
        with pytest.raises(ReadError, match=r"cut\.pt: .*cut short") as caught:
            load_model(cut)
        assert "\n" not in str(caught.value)


def test_a_damaged_weight_is_noticed(model):
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 0x55
    model.write_bytes(data)
    with pytest.raises(ReadError):
        load_model(model)


@pytest.mark.parametrize(
    "change,text",
    [
        ({"version": 2}, "version 2 .* 1 is read here"),
        ({"format": "other"}, "is no pyfocus-model"),
        ({"network": "Other"}, "name must be one of"),
        ({"config": {"kind": "grey"}}, "kind must be one of"),
        ({"config": {"colour": 1}}, "does not take"),
        ({"config": {"kind": "rggb", "frames": 2, "features": 16}}, "weights do not fit FocusDeep: "),
        ({"config": {"kind": "rggb", "frames": 2, "features": 1 << 16}}, "weights do not fit FocusDeep: "),
        ({"weights": {}}, "should be .* is nothing"),
        ({"weights": 3}, "holds no weights"),
        ({"facts": 3}, "no model that can be built"),
    ],
)
def test_what_does_not_fit_says_so(model, change, text):
    write_pack(model, {**read_pack(model, "pyfocus-model", 1), **change})
    with pytest.raises(ReadError, match=text) as caught:
        load_model(model)
    assert str(model) in str(caught.value) and "\n" not in str(caught.value)


def test_code_in_a_file_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"format": "pyfocus-model", "trap": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ReadError):
        load_model(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_other_files_are_no_models(tmp_path):
    with pytest.raises(ReadError, match=r"No such file"):
        load_model(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("a picture")
    with pytest.raises(ReadError, match="something else"):
        load_model(tmp_path / "text.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ReadError, match="'list'"):
        load_model(tmp_path / "list.pt")


def test_only_ours_and_plain_facts_are_saved(net, tmp_path):
    with pytest.raises(ArgumentError, match="save_model: net must be one of"):
        save_model(tmp_path / "m.pt", torch.nn.Linear(1, 1), {})
    with pytest.raises(ArgumentError, match=r"facts\['a'\]\[1\]: must be a plain value"):
        save_model(tmp_path / "m.pt", net, {"a": [1, torch.zeros(1)]})
    with pytest.raises(ArgumentError, match="keys must be strings"):
        save_model(tmp_path / "m.pt", net, {"a": {1: 2}})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_last_model(net, model, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = model.read_bytes()
    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(WriteError, match="disk is full"):
        save_model(model, net, {"other": 1})
    assert model.read_bytes() == before and [p.name for p in model.parent.iterdir()] == ["m.pt"]
