"""CLIP as a classifier: an image encoder, and the names of classes as the text encoder sees them."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from sparsetv.errors import UsageError


class ZeroShotClassifier(nn.Module):
    """Logits of images over named classes.

    It runs the image encoder that it is given, not a copy: whoever moves that one's weights moves this one's answers.

    Args:
        vision: A `CLIPVisionModel`: what gives pooled features of images.
        projection: From pooled features to the space that texts share.
        classes: Embeddings of the classes, each of norm 1, shape (classes, width).
        scale: What cosines are multiplied by.
        names: Names of the classes.
    """

    classes: Tensor
    scale: Tensor

    def __init__(
        self, vision: Any, projection: nn.Module, *, classes: Tensor, scale: Tensor, names: Sequence[str]
    ) -> None:
        super().__init__()
        self.vision, self.projection = vision, projection
        self.register_buffer("classes", classes, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.config = SimpleNamespace(
            num_labels=len(names),
            label2id={name: index for index, name in enumerate(names)},
            num_channels=getattr(vision.config, "num_channels", 3),
        )

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        """Logits of images.

        Args:
            pixel_values: (n, channels, height, width).

        Returns:
            `logits`: (n, classes), scaled cosines.
        """
        images = self.projection(self.vision(pixel_values=pixel_values).pooler_output)
        directions = nn.functional.normalize(images, dim=-1)
        return SimpleNamespace(logits=self.scale * directions @ self.classes.T)


def zero_shot_classifier(
    vision_model: Any, clip_model: Any, tokenizer: Any, names: Sequence[str], template: str | Sequence[str]
) -> nn.Module:
    """A classifier of images from an image encoder and the names of classes.

    Args:
        vision_model: `CLIPVisionModel`, `CLIPVisionModelWithProjection` or `CLIPModel`; used, not copied.
        clip_model: The `CLIPModel` whose text encoder and scale count, and whose projection does where `vision_model`
            has none.
        tokenizer: Of `clip_model`.
        names: Of the classes, in the order of labels.
        template: What is said of a class, with `{}` for its name; of several, embeddings are averaged.

    Returns:
        A module in evaluation mode, on the device of `vision_model`: `forward(pixel_values=…)` gives `logits`.

    Raises:
        UsageError: No or equal names, or a template without `{}`.

    Reference:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020,
        section 3.1.
    """
    if not names or len(set(names)) < len(names):
        raise UsageError("names of classes must be there, and differ")
    templates = [template] if isinstance(template, str) else list(template)
    if not templates or any("{}" not in text for text in templates):
        raise UsageError(f"a template needs {{}} where the name of a class goes, unlike {templates or 'none'}")
    device = next(vision_model.parameters()).device
    classes = torch.stack([_embed(clip_model, tokenizer, [text.replace("{}", name) for text in templates])
                           for name in names])  # fmt: skip
    classifier = ZeroShotClassifier(
        getattr(vision_model, "vision_model", vision_model),
        getattr(vision_model, "visual_projection", clip_model.visual_projection),
        classes=classes,
        scale=clip_model.logit_scale.detach().exp(),
        names=names,
    )
    return classifier.to(device).eval()


def _embed(clip_model: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Mean direction of texts, norm 1, shape (width,)."""
    device = next(clip_model.parameters()).device
    inputs = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(device)
    with torch.no_grad():
        pooled = clip_model.text_model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        ).pooler_output
        found = clip_model.text_projection(pooled)
    mean: Tensor = nn.functional.normalize(found, dim=-1).mean(dim=0)
    return nn.functional.normalize(mean, dim=-1)
