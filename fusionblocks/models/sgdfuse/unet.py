"""The denoising U-Net of SR3 and SGDFuse, conditioned on a continuous noise level, on diffusers' parts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ModelMixin, UNet2DModel  # noqa: F401 -- a pipeline looks for ModelMixin in this module
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.resnet import ResnetBlock2D
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn


class StrictLoading:
    """Makes a diffusers model refuse a file that lacks a weight; diffusers alone would leave it random."""

    config: Any  # diffusers' record of the constructor's arguments

    @classmethod
    def from_pretrained(cls, *arguments: Any, **options: Any) -> Any:
        """Load a model that ``save_pretrained`` wrote.

        Args:
            *arguments: As of ``diffusers.ModelMixin.from_pretrained``: the folder or the name on the hub.
            **options: Likewise.

        Raises:
            ValueError: If a weight is missing or surplus; the message names it.
        """
        wants_info = options.pop("output_loading_info", False)
        model, info = super().from_pretrained(*arguments, output_loading_info=True, **options)  # type: ignore[misc]
        problems = [
            f"{len(info[kind])} {word}: {', '.join(sorted(info[kind]))}"
            for kind, word in (("missing_keys", "missing"), ("unexpected_keys", "surplus"))
            if info[kind]
        ]
        if problems:
            raise ValueError(f"the weights in {arguments[0]} do not fit {cls.__name__}: {'; '.join(problems)}")
        return (model, info) if wants_info else model


class NoiseConditionedUNet(StrictLoading, UNet2DModel):
    """Denoising U-Net that is told the noise level ``sqrt(alpha_bar)`` itself instead of a step's number.

    A subclass of diffusers' ``UNet2DModel`` with SR3's two differences: the noise level goes through a small network
    of its own width, and its embedding enters the residual blocks without an activation. One attention head, of the
    level's full width, follows every residual block of the levels that attend; the middle block attends always.

    Args:
        in_channels: Channels of the input: the noisy picture and what it is conditioned on (SGDFuse: 3 + 2 masks).
        out_channels: Channels of the predicted noise.
        channels: Width of the finest level.
        multipliers: Width of each level in units of ``channels``, the finest first.
        layers_per_block: Residual blocks a level on the way down; the way up has one more.
        norm_groups: Groups of the group norms; divides the width of every level.
        dropout: Dropout probability in the residual blocks.
        attention_levels: Levels that attend besides the middle, 0 being the finest.

    Raises:
        ValueError: If a level's width is not a multiple of ``norm_groups``, a number is not positive,
            ``dropout`` is outside [0, 1), or an attention level does not exist.

    Reference:
        *Image Super-Resolution via Iterative Refinement* (SR3, 2021); *SGDFuse: SAM-Guided Diffusion for
        High-Fidelity Infrared and Visible Image Fusion* (2025), class ``UNet``.

    Example:
        >>> import torch
        >>> from fusionblocks import NoiseConditionedUNet
        >>> unet = NoiseConditionedUNet(channels=8, multipliers=(1, 2), layers_per_block=1, norm_groups=4)
        >>> unet(torch.rand(2, 5, 12, 10), torch.tensor([0.9, 0.5])).shape
        torch.Size([2, 3, 12, 10])
    """

    # what UNet2DModel is built from follows from our own options, so only these are saved
    ignore_for_config = [
        option
        for option in inspect.signature(UNet2DModel.__init__).parameters
        if option not in ("in_channels", "out_channels", "layers_per_block", "dropout")
    ]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 5,
        out_channels: int = 3,
        channels: int = 64,
        *,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        layers_per_block: int = 2,
        norm_groups: int = 32,
        dropout: float = 0.2,
        attention_levels: Sequence[int] = (),
    ) -> None:
        widths = tuple(channels * multiplier for multiplier in multipliers)
        _check_options(in_channels, out_channels, widths, layers_per_block, norm_groups, dropout, attention_levels)
        attends = [level in attention_levels for level in range(len(widths))]
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            block_out_channels=widths,
            layers_per_block=layers_per_block,
            norm_num_groups=norm_groups,
            norm_eps=1e-5,
            dropout=dropout,
            attention_head_dim=None,
            time_embedding_dim=channels,
            flip_sin_to_cos=False,
            freq_shift=0,
            down_block_types=tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
            up_block_types=tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
        )
        self.time_embedding = TimestepEmbedding(channels, 4 * channels, out_dim=channels)
        for module in self.modules():
            if isinstance(module, ResnetBlock2D):
                module.skip_time_act = True

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of, as each level but the coarsest halves them."""
        return 2 ** (len(self.down_blocks) - 1)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of the decoder's features, the finest level first."""
        return tuple(block.resnets[-1].out_channels for block in reversed(self.up_blocks))

    def forward(self, x: Tensor, noise_level: Tensor) -> Tensor:
        """Return the noise in a noisy picture.

        Args:
            x: Noisy picture, scaled to [-1, 1] before noise was added, and its conditions, ``(B, in_channels, H, W)``.
            noise_level: The signal's share ``sqrt(alpha_bar)`` of each picture, ``(B,)`` or ``(B, 1)``, in [0, 1].

        Returns:
            Predicted noise ``(B, out_channels, H, W)``.

        Raises:
            ValueError: If a shape does not fit, or H or W is not a multiple of :attr:`size_multiple`.
            TypeError: If an argument is not a floating-point tensor.
        """
        return self.forward_features(x, noise_level)[0]

    @apply_forward_hook  # so that a pipeline that keeps its modules on the CPU fetches this one
    def forward_features(self, x: Tensor, noise_level: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the noise in a noisy picture and the features of every decoder level, from one pass.

        Args:
            x: As in :meth:`forward`.
            noise_level: As in :meth:`forward`.

        Returns:
            The prediction ``(B, out_channels, H, W)``, and a list of ``(B, channels * multipliers[i], H / 2**i,
            W / 2**i)``, the finest level first: what each level's last layer gives, before it is enlarged.

        Raises:
            ValueError: If a shape does not fit, or H or W is not a multiple of :attr:`size_multiple`.
            TypeError: If an argument is not a floating-point tensor.
        """
        self._check_inputs(x, noise_level)
        encoding = self.time_proj(noise_level.flatten())
        embedding = self.time_embedding(encoding.to(self.conv_in.weight.dtype))  # (B, channels)

        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            x, states = block(hidden_states=x, temb=embedding)
            skips.extend(states)

        x = self.mid_block(x, embedding)

        features = []
        for block in self.up_blocks:
            x = _decode(block, x, skips, embedding)
            features.append(x)
            for upsampler in block.upsamplers or ():
                x = upsampler(x)

        return self.conv_out(self.conv_act(self.conv_norm_out(x))), features[::-1]

    def _check_inputs(self, x: Tensor, noise_level: Tensor) -> None:
        for name, tensor in (("x", x), ("noise_level", noise_level)):
            if not isinstance(tensor, Tensor) or not torch.is_floating_point(tensor):
                came = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
                raise TypeError(f"{name} must be a floating-point tensor, got {came}")
        if x.ndim != 4 or x.shape[1] != self.conv_in.in_channels:
            raise ValueError(f"x must have shape (B, {self.conv_in.in_channels}, H, W), got {tuple(x.shape)}")
        if noise_level.shape not in ((x.shape[0],), (x.shape[0], 1)):
            raise ValueError(
                f"noise_level must have shape ({x.shape[0]},) or ({x.shape[0]}, 1), one for each of x, "
                f"got {tuple(noise_level.shape)}"
            )
        if x.shape[-2] % self.size_multiple or x.shape[-1] % self.size_multiple:
            raise ValueError(
                f"x must have a height and a width that are multiples of {self.size_multiple}, "
                f"got {x.shape[-2]}x{x.shape[-1]} (height x width); pad it with fusionblocks.image.pad_to_multiple"
            )


def _decode(block: Any, x: Tensor, skips: list[Tensor], embedding: Tensor) -> Tensor:
    """Return the features of a diffusers decoder block; takes its skip connections off the end of ``skips``."""
    attentions = getattr(block, "attentions", [nn.Identity()] * len(block.resnets))
    for resnet, attention in zip(block.resnets, attentions, strict=True):
        x = torch.cat([x, skips.pop()], dim=1)
        if torch.is_grad_enabled() and block.gradient_checkpointing:
            x = block._gradient_checkpointing_func(resnet, x, embedding)
        else:
            x = resnet(x, embedding)
        x = attention(x)
    return x


def _check_options(
    in_channels: int,
    out_channels: int,
    widths: tuple[int, ...],
    layers_per_block: int,
    norm_groups: int,
    dropout: float,
    attention_levels: Sequence[int],
) -> None:
    numbers = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "layers_per_block": layers_per_block,
        "norm_groups": norm_groups,
    }
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a positive integer, got {number!r}")
    if not widths:
        raise ValueError("multipliers must name at least one level, got none")
    for width in widths:
        if width < 1 or width % norm_groups:
            raise ValueError(
                f"channels * multipliers must be positive multiples of norm_groups={norm_groups}, got {widths}"
            )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    if any(level not in range(len(widths)) for level in attention_levels):
        raise ValueError(f"attention_levels must be among 0 to {len(widths) - 1}, got {tuple(attention_levels)}")
