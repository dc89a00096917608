"""Small networks, what they are shown, and what they must give: what tests of networks as fusers share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyfocus.nn.stream_fuser import StreamFuser  # noqa: E402

NOISE = (1e-3, 1e-6)


class StubState(NamedTuple):
    sums: Any  # (1, 3, H, W)
    half: dict[str, Any]  # {"last": (1, 5, H/2, W/2)}
    count: Any  # (1, 1, 1, 1): the same for all tiles


class Result(NamedTuple):
    image: Any
    depth: Any
    confidence: Any


class Stub(torch.nn.Module):
    """A small folding network: every step sees 3 pixels around and what the last one saw; 4 at the end."""

    step_px, step_halo_px, finish_halo_px = 8, 8, 8

    def __init__(self) -> None:
        super().__init__()
        self.see = torch.nn.Conv2d(7, 5, 4, 2, 1)
        self.mix = torch.nn.Conv2d(10, 5, 3, 1, 1)
        self.weigh = torch.nn.ConvTranspose2d(5, 1, 2, 2)
        self.polish = torch.nn.Conv2d(3, 3, 5, 1, 2)
        self.told: list[Any] = []
        self.windows: list[tuple[int, int]] = []

    def init_state(self, batch: int, height: int, width: int) -> StubState:
        half = torch.full((batch, 5, height // 2, width // 2), 0.25)
        return StubState(torch.zeros(batch, 3, height, width), {"last": half}, torch.zeros(batch, 1, 1, 1))

    def step(self, state, frame, index, noise, white_balance, valid=None):
        self.told.append((float(index[0]), noise[0].tolist(), white_balance[0].tolist()))
        self.windows.append(tuple(frame.shape[2:]))
        seen = torch.ones_like(frame[:, :1]) if valid is None else valid
        gain = white_balance[:, :, None, None].expand_as(frame)
        x = torch.tanh(self.see(torch.cat([frame, gain, seen], 1)))
        last = torch.tanh(self.mix(torch.cat([x, state.half["last"]], 1)))
        weight = self.weigh(last).exp() * seen
        return StubState(state.sums + weight * frame * (1 + state.count), {"last": last}, state.count + 1)

    def finish(self, state, noise, white_balance):
        image = self.polish(state.sums / state.count)
        return Result(image, image[:, :1] * state.count, image[:, 1:2].sigmoid())


def textured(count=3, shape=(3, 70, 90), seed=0):
    return (0.1 + 0.8 * np.random.default_rng(seed).random((count, *shape))).astype(np.float32)


def masks_of(frames):
    masks = np.ones((len(frames), *frames.shape[2:]), np.uint8)
    for k in range(len(frames)):
        masks[k, : 5 * k, 10 : 30 + k] = 0
    return masks


def fold(net, frames, masks=None, places=None, **how):
    fuser = StreamFuser(net, **{"noise": NOISE, "threads": 1, **how})
    for k, frame in enumerate(frames):
        fuser.push(frame, None if masks is None else masks[k], index=None if places is None else places[k])
    return fuser.finish()


def at_once(net, frames, masks=None, places=None, noise=NOISE, balance=(1.0, 1.0, 1.0)):
    """The network over whole frames, padded by mirrored pixels: what every fuser is held to."""
    down, right = (-n % 8 for n in frames.shape[2:])
    pad = [(0, 0), (0, down), (0, right)]
    told = torch.tensor([noise]), torch.tensor([balance])
    with torch.no_grad():
        state = net.init_state(1, frames.shape[2] + down, frames.shape[3] + right)
        for k, frame in enumerate(frames):
            x = torch.from_numpy(np.pad(frame, pad, mode="reflect"))[None]
            seen = (
                None if masks is None else torch.from_numpy(np.pad(masks[k][None], pad, mode="reflect"))[None].float()
            )
            state = net.step(state, x, torch.tensor([float(k if places is None else places[k])]), *told, seen)
        out = net.finish(state, *told)
    cut = np.s_[0, :, : frames.shape[2], : frames.shape[3]]
    return out.image[cut].numpy(), out.depth[cut][0].numpy(), out.confidence[cut][0].numpy()


def close(fused, wanted, atol):
    for ours, theirs in zip((fused.image, fused.depth, fused.confidence), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


class Pick(torch.nn.Module):
    """A fixed number of frames, of which it gives back one."""

    def __init__(self, kind: str, frames: int, number: int, scale: int = 1) -> None:
        super().__init__()
        self.kind, self.frames, self.number, self.scale = kind, frames, number, scale
        self.seen: Any = None

    def forward(self, burst):
        self.seen = burst
        x = burst[:, self.number]
        if self.kind == "rgb":
            return x
        if self.kind == "rggb":
            x = torch.nn.functional.pixel_shuffle(x, 2)
        return x.expand(-1, 3, -1, -1)
