"""FocusDeepStream: any number of frames, one pass, constant memory. What the package ships.

    frame ─ encoder ─ align to the frame before ─ heads ─→ weights and values      once per frame
          state += weight * value                                                 folded, order hardly matters
    state ─ blends ─ decoder ─→ picture, depth, confidence                          once at the end

Each head gives a weight e^l per pixel, l bounded; sums of weights and of weighted pixels, features and places in focus
order are the whole state, besides the last frame's features. So the picture is a blend of the frames' own pixels, one
sharp and one smooth, corrected by a decoder: an untrained network already stacks as a classical one would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError
from .layers import leaky, up2
from .stream_parts import BoundedAlignment, Decoder, Hourglass, conv3
from .tone import compress, details, expand, focus_energies, noise_map, unit

Size = Literal["tiny", "lite", "base"]
BOUND = 12.0  # of the heads' logits: weights lie within e^-12 and e^12, far inside float32
INPUTS = 15 + 3 + 2 + 1  # details and means, noise, focus measures, valid
ENERGY_MIDDLE = -4.5  # of the focus measures, whose usual range is -8 to -1


@dataclass(frozen=True)
class Widths:
    """Features at 1/2, 1/4 and 1/8 size and residual blocks there, of encoder and decoder; feature heads."""

    encoder: tuple[int, int, int]
    encoder_blocks: tuple[int, int, int]
    decoder: tuple[int, int, int]
    decoder_blocks: tuple[int, int, int]
    heads: int


SIZES: dict[Size, Widths] = {
    "tiny": Widths((8, 8, 16), (0, 1, 1), (16, 16, 16), (1, 1, 1), 2),
    "lite": Widths((32, 48, 64), (0, 1, 2), (48, 64, 96), (2, 2, 2), 4),
    "base": Widths((64, 96, 128), (1, 2, 3), (96, 128, 192), (4, 4, 4), 8),
}


class StreamState(NamedTuple):
    """Everything a fold remembers; float32, sizes relative to the frame's.

    ``previous`` (B, C4, H/4, W/4): the last frame's aligned features; ``count`` (B, 1, 1, 1) frames folded;
    ``sharp`` and ``smooth`` (B, 20, H/2, W/2): sums of weights, of their squares (4 each, the pixels of a 2x2 block),
    and of weighted pixels (12); ``depth`` (B, 3, H/2, W/2): sums of weights, weighted places and their squares;
    ``features`` (B, heads + C2, H/2, W/2): sums of weights and weighted features.
    """

    previous: Tensor
    count: Tensor
    sharp: Tensor
    smooth: Tensor
    depth: Tensor
    features: Tensor


STATE_STRIDES = StreamState(4, 0, 2, 2, 2, 2)  # of each map; 0: not a map


@dataclass(frozen=True)
class StreamResult:
    """``image`` (B, 3, H, W) linear camera RGB; ``depth`` (B, 1, H, W) place in focus order, in the units of the
    ``index`` given; ``confidence`` (B, 1, H, W) in [0, 1]; ``blend`` (B, 3, H, W) the picture before the decoder's
    corrections (sharp blend), ``smooth`` the other one, ``confidence_logit``: for training."""

    image: Tensor
    depth: Tensor
    confidence: Tensor
    blend: Tensor
    smooth: Tensor
    confidence_logit: Tensor


class FocusDeepStream(nn.Module):
    """Frames (B, N, 3, H, W) of linear camera RGB to one picture, or a frame at a time.

    ``size``: "lite" (CPUs), "base" (GPUs), "tiny" (tests). Frames are as the pipeline hands them to a fuser: of one
    geometry, equally bright, not white-balanced, 1 at white, noise free to go below 0; H and W multiples of 8. The
    network is told ``noise`` (B, 2), shot and read of a raw sample's variance ``shot x + read``, and
    ``white_balance`` (B, 3). ``index`` (B,) is a frame's place in focus order.

        state = net.init_state(1, height, width)
        for k, frame in enumerate(frames):
            state = net.step(state, frame, torch.tensor([k]), noise, white_balance)
        result = net.finish(state, noise, white_balance)

    ``step_halo_px`` and ``finish_halo_px``: how far from a pixel, in pixels of the frame, lies all that a step or the
    finish reads for it; a tile with so much around it gives what the whole gives. Raises ArgumentError for shapes that
    do not fit.
    """

    step_px = 8

    def __init__(self, size: Size = "lite", *, reach_px: float = 8.0) -> None:
        super().__init__()
        if size not in SIZES:
            raise ArgumentError(f"FocusDeepStream: size must be one of {', '.join(SIZES)}, got {size!r}")
        if not 0 < reach_px <= 16:
            raise ArgumentError(f"FocusDeepStream: reach_px must be above 0 and at most 16, got {reach_px}")
        self.config: dict[str, Any] = {"size": size, "reach_px": reach_px}
        widths = SIZES[size]
        a, b, _ = widths.encoder
        self.heads = widths.heads
        self.encoder = Hourglass(INPUTS, widths.encoder, widths.encoder_blocks)
        self.align = BoundedAlignment(b, reach_px / 4)
        self.compare = conv3(2 * b, b)
        self.weigh = conv3(a, 4 + 4 + 1 + widths.heads)
        self.values = conv3(a, a)
        self.lean = nn.Parameter(torch.tensor([[2.0, 0.5, 2.0, 1.0], [1.0, 0.0, 1.0, 0.5]]))  # focus measures to logits
        with torch.no_grad():
            self.weigh.weight.mul_(0.1)
        spread = 8 + (8 + reach_px + 4) + 4 + 2  # focus measures, alignment, comparison, heads
        self.step_halo_px = _whole(spread + self.encoder.halo_px)
        self.decoder = Decoder(2 * (15 + 3 + 1) + 1 + a, widths.decoder, widths.decoder_blocks)
        self.finish_halo_px = _whole(6 + self.decoder.body.halo_px)

    def init_state(self, batch: int, height: int, width: int) -> StreamState:
        """Nothing folded yet. Sizes are the frames'; on the device of the parameters."""
        self._check_size(height, width)
        h, w = height // 2, width // 2
        place = self.lean.device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, device=place)

        a, b = self.values.out_channels, self.compare.out_channels
        return StreamState(
            zeros(b, h // 2, w // 2), zeros(1, 1, 1), zeros(20, h, w), zeros(20, h, w), zeros(3, h, w),
            zeros(self.heads + a, h, w),
        )  # fmt: skip

    def step(
        self,
        state: StreamState,
        frame: Tensor,
        index: Tensor,
        noise: Tensor,
        white_balance: Tensor,
        valid: Tensor | None = None,
    ) -> StreamState:
        """The state with one frame (B, 3, H, W) more; ``valid`` (B, 1, H, W): 1 where it saw the scene."""
        self._check_frame(frame)
        seen = frame.new_ones(frame.shape[0], 1, *frame.shape[2:]) if valid is None else valid.to(frame.dtype)
        packed, x, energies = self._see(frame, noise, white_balance, seen)
        first, second = self.encoder.descend(x)
        aligned = self._aligned(second, state.previous, state.count)
        values, logits = self._weigh(first, aligned, state.previous, state.count, energies)
        parts = self._contribution(packed, values, logits, index, _unshuffled(seen))
        sums = [old + new for old, new in zip(state[2:], parts, strict=True)]
        return StreamState(_full(aligned), state.count + 1, *sums)

    def finish(self, state: StreamState, noise: Tensor, white_balance: Tensor) -> StreamResult:
        """The picture and its maps from the state, which stays as it is."""
        blends, inputs = [], []
        for sums in (state.sharp, state.smooth):
            weights = sums[:, :4].clamp_min(1e-12)
            mean = sums[:, 8:] / weights.repeat(1, 3, 1, 1)
            left = sums[:, 4:8] / weights.square()  # what averaging leaves of the variance
            colours = compress(mean)
            sigma = noise_map(_mean4(mean), noise, white_balance) * left.mean(1, keepdim=True).sqrt()
            blends.append((colours, sigma))
            inputs += [details(colours, sigma), 10 * sigma, 0.1 * torch.log(weights.mean(1, keepdim=True))]
        place, spread = self._place(state.depth)
        share = state.features[:, : self.heads].clamp_min(1e-12)
        each = self.values.out_channels // self.heads
        features = state.features[:, self.heads :] / share.repeat_interleave(each, 1)
        residual, smooth, sure = self.decoder(torch.cat([*inputs, spread, features], 1))
        (sharp_blend, sigma), (smooth_blend, _) = blends
        picture = sharp_blend + smooth.repeat(1, 3, 1, 1) * (smooth_blend - sharp_blend) + unit(sigma) * residual
        gain = white_balance[:, :, None, None]

        def whole(colours: Tensor) -> Tensor:
            return expand(F.pixel_shuffle(colours, 2)) / gain

        return StreamResult(
            whole(picture), up2(place), up2(sure).sigmoid(), whole(sharp_blend), whole(smooth_blend), up2(sure)
        )

    def forward(
        self, frames: Tensor, index: Tensor, noise: Tensor, white_balance: Tensor, valid: Tensor | None = None
    ) -> StreamResult:
        """Frames (B, N, 3, H, W), index (B, N), valid (B, N, 1, H, W): all steps and the finish.

        The same as step by step, but what knows one frame only is done for all at once: faster, at N times the memory.
        """
        if frames.dim() != 5:
            raise ArgumentError(
                f"FocusDeepStream: frames must have shape (batch, N, 3, H, W), got {tuple(frames.shape)}"
            )
        batch, count = frames.shape[:2]
        flat = frames.flatten(0, 1)
        self._check_frame(flat)
        seen = flat.new_ones(len(flat), 1, *flat.shape[2:]) if valid is None else valid.flatten(0, 1).to(flat.dtype)
        packed, x, energies = self._see(
            flat, noise.repeat_interleave(count, 0), white_balance.repeat_interleave(count, 0), seen
        )
        first, second = self.encoder.descend(x)
        state = self.init_state(batch, *frames.shape[3:])
        befores: list[Tensor] = []
        aligned: list[Tensor] = []
        previous, folded = state.previous, state.count
        for features in second.unflatten(0, (batch, count)).unbind(1):
            moved = self._aligned(features, previous, folded)
            befores.append(previous if aligned else moved)
            aligned.append(moved)
            previous, folded = moved, folded + 1
        together, before = (torch.stack(each, 1).flatten(0, 1) for each in (aligned, befores))
        values, logits = self._weigh(first, together, before, torch.ones_like(state.count[:1]), energies)
        parts = self._contribution(packed, values, logits, index.flatten(), _unshuffled(seen))
        sums = [part.unflatten(0, (batch, count)).sum(1) for part in parts]
        return self.finish(StreamState(_full(previous), folded, *sums), noise, white_balance)

    def _see(self, frame: Tensor, noise: Tensor, white_balance: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Packed balanced pixels (B, 12, h, w), the encoder's input, and centred focus measures (B, 2, h, w)."""
        balanced = frame * white_balance[:, :, None, None]
        packed = F.pixel_unshuffle(balanced, 2)
        compressed = compress(balanced)
        sigma = noise_map(F.avg_pool2d(F.avg_pool2d(balanced, 2), 3, 1, 1), noise, white_balance)
        energies = focus_energies(compressed, sigma) - ENERGY_MIDDLE
        x = torch.cat(
            [
                details(F.pixel_unshuffle(compressed, 2), sigma),
                10 * sigma,
                0.25 * energies,
                _unshuffled(seen).amin(1, True),
            ],
            1,
        )
        return packed, x, energies

    def _aligned(self, features: Tensor, previous: Tensor, count: Tensor) -> Tensor:
        """The frame's features at 1/4 size where the frame before has them; the first frame is its own."""
        before = torch.where(count > 0, previous.to(features.dtype), features)
        moved: Tensor = self.align(features, before)
        return moved

    def _weigh(
        self, first: Tensor, aligned: Tensor, previous: Tensor, count: Tensor, energies: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Values (B, C2, h, w) and bounded logits (B, 4 + 4 + 1 + heads, h, w), float32."""
        before = torch.where(count > 0, previous.to(aligned.dtype), aligned)
        second = aligned + leaky(self.compare(torch.cat([aligned, before], 1)))
        features = self.encoder.ascend(first, second)
        lean = torch.einsum("bchw,ck->bkhw", energies, self.lean.to(energies.dtype))
        prior = torch.cat([lean[:, k : k + 1].expand(-1, n, -1, -1) for k, n in enumerate((4, 4, 1, self.heads))], 1)
        logits = _full(self.weigh(leaky(features))) + prior
        return _full(self.values(leaky(features))), BOUND * torch.tanh(logits / BOUND)

    def _contribution(
        self, packed: Tensor, values: Tensor, logits: Tensor, index: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a frame adds to the state's sums; a pixel that it did not see has no weight."""
        weights = logits.exp() * torch.cat([seen, seen, seen.amin(1, True).expand(-1, 1 + self.heads, -1, -1)], 1)
        sharp, smooth, depth, heads = weights.split([4, 4, 1, self.heads], 1)
        place = index.to(values.dtype)[:, None, None, None]
        each = values.shape[1] // self.heads
        return (
            torch.cat([sharp, sharp.square(), sharp.repeat(1, 3, 1, 1) * packed], 1),
            torch.cat([smooth, smooth.square(), smooth.repeat(1, 3, 1, 1) * packed], 1),
            torch.cat([depth, depth * place, depth * place * place], 1),
            torch.cat([heads, heads.repeat_interleave(each, 1) * values], 1),
        )

    @staticmethod
    def _place(sums: Tensor) -> tuple[Tensor, Tensor]:
        """Mean place (B, 1, h, w) of the depth head's weights, and how far they spread, in frames, up to about 1."""
        weight = sums[:, :1].clamp_min(1e-12)
        mean = sums[:, 1:2] / weight
        variance = (sums[:, 2:] / weight - mean * mean).clamp_min(0)
        return mean, variance / (variance + 4)

    def _check_frame(self, frame: Tensor) -> None:
        if frame.dim() != 4 or frame.shape[1] != 3 or not frame.is_floating_point():
            raise ArgumentError(
                f"FocusDeepStream: a frame must be (batch, 3, H, W) of floats, got {tuple(frame.shape)} {frame.dtype}"
            )
        self._check_size(*frame.shape[2:])

    def _check_size(self, height: int, width: int) -> None:
        if height < 8 or width < 8 or height % 8 or width % 8:
            raise ArgumentError(f"FocusDeepStream: H and W must be multiples of 8, got {height} x {width}")


def _full(x: Tensor) -> Tensor:
    """At least float32, which sums over hundreds of frames need."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _whole(px: float) -> int:
    """The next multiple of 8."""
    return -int(-px // 8) * 8


def _unshuffled(seen: Tensor) -> Tensor:
    """(B, 1, H, W) to (B, 4, h, w): each 2x2 block's pixels as channels, in the order of pixel_unshuffle."""
    return F.pixel_unshuffle(seen, 2)


def _mean4(packed: Tensor) -> Tensor:
    """(B, 12, h, w) to (B, 3, h, w): each colour's mean over its 2x2 block."""
    return packed.unflatten(1, (3, 4)).mean(2)
